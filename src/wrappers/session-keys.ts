import { currentSite } from '../current-site.ts'
import { ChannelkitError } from '../errors.ts'
import type { Message } from '../message.ts'
import type { WithChannelSession } from './channel-session.ts'
import type { WithHttpSession } from './http-session.ts'
import { stateOf } from './message-state.ts'

/** What {@link sessionKeys} puts into content. */
export type SessionKeys = {
  readonly reply_channel?: string
  readonly http_session?: string
}

/**
 * What passes the sessions and user of a message on to a consumer of one of the site's own channels:
 * `await Channel('orders').send({ ...sessionKeys(message), item })`. That consumer, wrapped like
 * this one, then has the same `httpSession`, `channelSession` and `user`.
 *
 * @throws {ChannelkitError} `ERR_WRAPPER_MISUSE` outside of a session wrapper.
 */
export function sessionKeys(
  message: Message & (WithHttpSession | WithChannelSession),
): SessionKeys {
  const { httpSession, channelSession } = stateOf(message)
  if (httpSession === undefined && channelSession === undefined) {
    throw new ChannelkitError(
      'ERR_WRAPPER_MISUSE',
      `sessionKeys is given a message of ${message.channel} without sessions; wrap the consumer in httpSession or channelSession`,
    )
  }
  return {
    ...(message.hasReplyChannel && { reply_channel: message.replyChannel.name }),
    ...(httpSession && { http_session: currentSite().sessions().pass(httpSession.id) }),
  }
}
