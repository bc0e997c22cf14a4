import { currentSite } from '../current-site.ts'
import { ChannelkitError } from '../errors.ts'
import type { Message } from '../message.ts'
import type { ChannelSession, Session } from '../sessions/session.ts'

/** What the wrappers of one message have found, so that each asks only once. */
export interface MessageState {
  channelSession?: ChannelSession
  httpSession?: Session | null
}

const states = new WeakMap<Message, MessageState>()

/** What is known of a message. It ends with the message: nothing of a client is kept beyond. */
export function stateOf(message: Message): MessageState {
  let state = states.get(message)
  if (!state) {
    state = {}
    states.set(message, state)
  }
  return state
}

/** The channel session of a message, read when it is first asked for. */
export async function openChannelSession(
  message: Message,
  wrapper: string,
): Promise<ChannelSession> {
  const state = stateOf(message)
  if (!message.hasReplyChannel) {
    throw new ChannelkitError(
      'ERR_NO_REPLY_CHANNEL',
      `${wrapper} is around a consumer of ${message.channel}, and a message there has no reply channel to keep a session for; send it with ...sessionKeys(message) in its content`,
    )
  }
  state.channelSession ??= await currentSite().sessions().loadOfChannel(message.replyChannel.name)
  return state.channelSession
}

/** Adds a property to a message, for the consumers inside. */
export function addToMessage(message: Message, name: string, value: unknown): void {
  Object.defineProperty(message, name, { value, configurable: true })
}

/** Whether a message shows that its client is in use, as a request does, so that its session lasts. */
export function isActivity({ channel }: Message): boolean {
  return channel === 'websocket.receive'
}
