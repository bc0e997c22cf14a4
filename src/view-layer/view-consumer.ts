import type { Consumer } from '../consumer.ts'
import { ChannelkitError, isChannelkitError, shown } from '../errors.ts'
import { decodeRequest, sendResponse } from '../http/request-response.ts'
import type { Logger } from '../logger.ts'
import type { Message } from '../message.ts'
import type { FetchApp } from './fetch-app.ts'

export interface ViewOptions {
  readonly isProduction: boolean
  readonly logger: Logger
}

/**
 * Makes the consumer of `http.request` that hands each request to the site's app.
 *
 * @param app - a fetch-style app.
 * @throws {ChannelkitError} `ERR_INVALID_CONFIG` when it is none.
 */
export async function viewConsumer(app: unknown, options: ViewOptions): Promise<Consumer> {
  if (!isFetchApp(app)) {
    throw new ChannelkitError(
      'ERR_INVALID_CONFIG',
      `app is ${shown(app)}; give an object with fetch(request), as Hono's app is`,
    )
  }
  const view = async (message: Message<'http.request'>): Promise<void> => {
    try {
      await sendResponse(await app.fetch(decodeRequest(message.content)), message.replyChannel)
    } catch (error) {
      const { method, path } = message.content
      if (isChannelkitError(error, 'ERR_BAD_REQUEST')) {
        await message.replyChannel.send({
          status: 400,
          content_type: 'text/plain',
          content: 'Bad Request',
        })
        return
      }
      options.logger.error({ err: error, method, path }, `the view of ${method} ${path} failed`)
      await message.replyChannel.send({
        status: 500,
        content_type: 'text/plain; charset=utf-8',
        content: options.isProduction ? 'Internal Server Error' : stackOf(error),
      })
    }
  }
  return view as Consumer
}

function isFetchApp(app: unknown): app is FetchApp {
  return (
    ((typeof app === 'object' && app !== null) || typeof app === 'function') &&
    'fetch' in app &&
    typeof app.fetch === 'function'
  )
}

function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? String(error)) : String(error)
}
