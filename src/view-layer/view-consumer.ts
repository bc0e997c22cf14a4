import type { Consumer } from '../consumer.ts'
import { isChannelkitError } from '../errors.ts'
import { errorPage } from '../http/error-page.ts'
import { borrowRequest } from '../http/local-requests.ts'
import { requestId } from '../http/request-id.ts'
import type { Logger } from '../logger.ts'
import { goOnBeyond, type Message } from '../message.ts'
import { runFetchView } from './fetch-view.ts'
import { runLentNodeView } from './lent-view.ts'
import { runNodeView } from './node-view.ts'
import { findApp } from './view-app.ts'
import { ViewRequest } from './view-request.ts'

export interface ViewOptions {
  readonly isProduction: boolean
  readonly logger: Logger
}

/**
 * Makes the consumer of `http.request` that hands each request to the site's app.
 *
 * @param app - a fetch-style app, a Node handler, or a function that imports one.
 * @throws {ChannelkitError} `ERR_INVALID_CONFIG` when it is none.
 */
export async function viewConsumer(app: unknown, options: ViewOptions): Promise<Consumer> {
  const found = await findApp(app)
  const answer = async (view: ViewRequest): Promise<void> => {
    try {
      if (found.kind === 'fetch') await runFetchView(found.fetch, view)
      else if (view.lent) await runLentNodeView(found.handle, view, view.lent)
      else await runNodeView(found.handle, view)
    } catch (error) {
      await fail(view, error, options)
    } finally {
      view.end()
    }
  }
  const consumer = async (message: Message<'http.request'>): Promise<void> => {
    const lent = borrowRequest(message.backend, message.content.reply_channel)
    const view = new ViewRequest(message, lent)
    view.onFault = (error) => logFailure(view, error, options)
    const work = answer(view)
    if (await endsBeforeItStreams(work, view)) return
    goOnBeyond(message, work)
  }
  return consumer as Consumer
}

/** Waits until a view has answered, or a first part of its answer is out. */
function endsBeforeItStreams(work: Promise<void>, view: ViewRequest): Promise<boolean> {
  return new Promise((resolve, reject) => {
    // It may stream before its first await.
    if (view.hasStreamed) resolve(false)
    view.onStream = () => resolve(false)
    work.then(() => resolve(true), reject)
  })
}

async function fail(view: ViewRequest, error: unknown, options: ViewOptions): Promise<void> {
  const { lent, isDeferred } = view
  // It was ended because its client has gone; there is nobody to answer.
  if (view.hasLostClient) return
  const hasBegun = lent ? lent.response.headersSent : view.hasBegun
  if (!hasBegun && isChannelkitError(error, 'ERR_BAD_REQUEST')) {
    lent?.giveBack()
    await view.link.send({ status: 400, content_type: 'text/plain', content: 'Bad Request' })
    return
  }
  const id = logFailure(view, error, options)
  if (isDeferred) return
  if (hasBegun && lent) {
    lent.cut()
  } else if (hasBegun) {
    await view.link.send({ abort: true })
  } else {
    lent?.giveBack()
    await view.link.send({
      status: 500,
      content_type: 'text/plain; charset=utf-8',
      content: errorPage(error, id, options.isProduction),
    })
  }
}

/** @returns what names the request in the log and on its page. */
function logFailure({ message }: ViewRequest, error: unknown, { logger }: ViewOptions): string {
  const { method, path, reply_channel: replyChannel } = message.content
  const id = requestId(replyChannel)
  logger.error({ err: error, method, path, request: id }, `the view of ${method} ${path} failed`)
  return id
}
