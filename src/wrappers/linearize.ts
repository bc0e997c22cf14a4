import { type Consumer, consumerName, markLinearized, wrapConsumer } from '../consumer.ts'
import { ChannelkitError } from '../errors.ts'
import { type Message, turnOf } from '../message.ts'

/**
 * Wraps a consumer so that for one reply channel it never overlaps with itself or with any other
 * linearized consumer, and all of them run in the order in which the client's events happened,
 * however many workers there are. Different clients run in parallel.
 *
 * A message whose turn has not come is parked in the backend, and a worker is given it when the
 * one before it has ended, whether well or by an exception. A consumer that throws `Requeue` gives
 * up its place: the line goes on, and the message comes again behind what waits by then. The turn
 * of a worker that died lapses after the worker's `lineLeaseMs`, and its message is lost. A consumer
 * that runs for longer than `maxTurnMs` loses its turn: `message.signal` is aborted, and with
 * `ERR_LOCK_LOST` its replies and held sends fail, and its sessions are not saved.
 *
 * Works at any place among wrappers, which must return their consumers through `wrapConsumer`.
 * Outermost is best: what wrappers outside of it do before the consumer has the turn as well.
 *
 * @example
 * ```ts
 * export const wsMessage = linearize(async (message: Message<'websocket.receive'>) => {
 *   await saveMove(message.replyChannel.name, message.content)
 * })
 * ```
 * @throws {ChannelkitError} when the consumer is run: `ERR_NO_REPLY_CHANNEL` for a message without
 *   reply channel; `ERR_WRAPPER_MISUSE` when a wrapper around it hid from the worker that it is
 *   linearized.
 */
export function linearize<M extends Pick<Message, 'channel' | 'hasReplyChannel'>>(
  consumer: Consumer<M>,
): Consumer<M> {
  const linearized = (message: M): void | Promise<void> => {
    if (!message.hasReplyChannel) {
      throw new ChannelkitError(
        'ERR_NO_REPLY_CHANNEL',
        `linearize on ${message.channel} was given a message without reply channel, which has no line to wait in; send it with reply_channel in its content`,
      )
    }
    if (turnOf in message && message[turnOf] === undefined) {
      throw new ChannelkitError(
        'ERR_WRAPPER_MISUSE',
        `linearize around ${consumerName(consumer)} on ${message.channel} is hidden by a wrapper outside of it; let that wrapper return its consumer through wrapConsumer`,
      )
    }
    return consumer(message)
  }
  return markLinearized(wrapConsumer(linearized, consumer))
}
