import type { Consumer } from '../consumer.ts'
import { isChannelkitError } from '../errors.ts'
import { ClientLinks } from '../http/client-link.ts'
import { partBytesFor } from '../http/part-window.ts'
import { requestId } from '../http/request-id.ts'
import type { Logger } from '../logger.ts'
import type { Message } from '../message.ts'
import type { HttpResponse } from '../message-formats.ts'
import { runFetchView } from './fetch-view.ts'
import { runNodeView } from './node-view.ts'
import { findApp } from './view-app.ts'
import type { ViewRequest } from './view-request.ts'

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
  const run =
    found.kind === 'fetch'
      ? (view: ViewRequest) => runFetchView(found.fetch, view)
      : (view: ViewRequest) => runNodeView(found.handle, view)
  const consumer = async (message: Message<'http.request'>): Promise<void> => {
    const { backend, content } = message
    const view: ViewRequest = {
      message,
      link: ClientLinks.of(backend).open(content.reply_channel),
      partBytes: partBytesFor(backend.limits.maxContentBytes),
      hasBegun: false,
      isDeferred: false,
    }
    try {
      await run(view)
    } catch (error) {
      await fail(view, error, options)
    } finally {
      view.link.end()
    }
  }
  return consumer as Consumer
}

async function fail(
  { message, link, hasBegun, isDeferred }: ViewRequest,
  error: unknown,
  { isProduction, logger }: ViewOptions,
): Promise<void> {
  const { method, path } = message.content
  // It was ended because its client has gone; there is nobody to answer.
  if (link.isClosed) return
  if (!hasBegun && isChannelkitError(error, 'ERR_BAD_REQUEST')) {
    await link.send({ status: 400, content_type: 'text/plain', content: 'Bad Request' })
    return
  }
  const id = requestId(message.content.reply_channel)
  logger.error({ err: error, method, path, request: id }, `the view of ${method} ${path} failed`)
  if (isDeferred) return
  if (hasBegun) await link.send({ abort: true })
  else await link.send(errorPage(error, id, isProduction))
}

function errorPage(error: unknown, id: string, isProduction: boolean): HttpResponse {
  return {
    status: 500,
    content_type: 'text/plain; charset=utf-8',
    content: isProduction ? `Internal Server Error\nRequest ${id}\n` : stackOf(error),
  }
}

function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? String(error)) : String(error)
}
