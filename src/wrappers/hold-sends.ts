import { type Consumer, wrapConsumer } from '../consumer.ts'
import { holdingSends } from '../held-sends.ts'
import { checkTurn } from '../message.ts'

/**
 * Wraps a consumer so that what it sends becomes visible only after it has succeeded, in the order
 * of its calls, and not at all when it throws. `send(content, { immediately: true })` is not held.
 *
 * An `await` on a held send resolves at once, so a full channel shows only at the end, as the
 * failure of the whole consumer. Changes of group membership are not held, nor is what the consumer
 * left running sends after its end.
 *
 * @throws {ChannelkitError} when it runs: `ERR_LOCK_LOST` instead of sending, when the consumer is
 *   linearized and has lost its turn.
 */
export function holdSends<M extends object>(consumer: Consumer<M>): Consumer<M> {
  const holding = (message: M): Promise<void> =>
    holdingSends(
      () => consumer(message),
      () => checkTurn(message, 'what was held is not sent'),
    )
  return wrapConsumer(holding, consumer)
}
