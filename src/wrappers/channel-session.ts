import { type Consumer, type Given, wrapConsumer } from '../consumer.ts'
import { currentSite } from '../current-site.ts'
import { checkTurn, type Message } from '../message.ts'
import { Requeue } from '../requeue.ts'
import type { ChannelSession } from '../sessions/session.ts'
import { addToMessage, openChannelSession } from './message-state.ts'
import { keepInUserGroup } from './user-group.ts'

/** What {@link channelSession} adds to a message. */
export interface WithChannelSession {
  /** What consumers keep for this client, from one message to the next. */
  readonly channelSession: ChannelSession
}

/**
 * Wraps a consumer so that `message.channelSession` keeps what it is given until the client is gone:
 * one session for each reply channel, whatever consumer or worker has its messages.
 *
 * It is made when something is first kept in it, and saved when it was changed, even when the
 * consumer throws; but not when the consumer is linearized and has lost its turn.
 *
 * @throws {ChannelkitError} when it runs: `ERR_NO_REPLY_CHANNEL`, `ERR_NOT_CONFIGURED`,
 *   `ERR_LOCK_LOST` instead of saving
 */
export function channelSession<M extends Message>(
  consumer: Consumer<Given<M> & WithChannelSession>,
): Consumer<M> {
  const withSession = async (message: M): Promise<void> => {
    const inner = message as Given<M> & WithChannelSession
    // Another one around this does the work.
    if (Object.hasOwn(message, 'channelSession')) return consumer(inner)
    const session = await openChannelSession(message, 'channelSession')
    addToMessage(message, 'channelSession', session)
    try {
      await consumer(inner)
    } catch (error) {
      await save(message, session).catch((fault) => {
        currentSite().logger.error({ err: fault }, 'a channel session could not be saved')
      })
      throw error
    }
    await save(message, session)
  }
  return wrapConsumer(withSession, consumer)
}

async function save(message: Message, session: ChannelSession): Promise<void> {
  const { channel } = message
  const mayStillSave = (): void => checkTurn(message, 'the channel session is not saved')
  await currentSite().sessions().saveOfChannel(session, { channel, mayStillSave })
  await keepInUserGroup(message, session)
}

/**
 * Wraps the consumer of `websocket.disconnect`, so that the channel session ends after it ran, unless
 * it is to run again. Sites get it by themselves.
 */
export function endChannelSession(consumer: Consumer): Consumer {
  const ending = async (message: Message): Promise<void> => {
    try {
      await consumer(message)
    } catch (error) {
      if (!(error instanceof Requeue)) await end(message)
      throw error
    }
    await end(message)
  }
  return wrapConsumer(ending, consumer)
}

async function end(message: Message): Promise<void> {
  if (!message.hasReplyChannel) return
  await currentSite().sessions().destroyOfChannel(message.replyChannel.name)
}
