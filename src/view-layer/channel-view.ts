import { Channel } from '../channel.ts'
import type { Content } from '../content.ts'
import { checkChannelName } from '../names.ts'
import { type AnyRequest, defer, messageOf } from './view-request.ts'

/** A view for Hono, for fetch apps, and for Express and other Node handlers. */
export type ChannelView = (request: AnyRequest, ...rest: unknown[]) => Promise<Response>

/**
 * Makes a view that hands its requests on to a channel, whose consumer answers on
 * `message.replyChannel`: it gets the content of `http.request`.
 *
 * @example
 * ```ts
 * app.get('/report', channelView('reports'))
 * ```
 * @throws {ChannelkitError} `ERR_INVALID_NAME`
 */
export function channelView(name: string): ChannelView {
  checkChannelName(name)
  return async (request) => {
    const { content, backend } = messageOf(request)
    await Channel(name, { backend }).send(content as Content)
    return defer(request)
  }
}
