import { type Consumer, wrapConsumer } from '../consumer.ts'
import { holdingSends } from '../held-sends.ts'

/**
 * Wraps a consumer so that what it sends becomes visible only after it has succeeded, in the order
 * of its calls, and not at all when it throws. `send(content, { immediately: true })` is not held.
 *
 * An `await` on a held send resolves at once, so a full channel shows only at the end, as the
 * failure of the whole consumer. Changes of group membership are not held, nor is what the consumer
 * left running sends after its end.
 */
export function holdSends<M>(consumer: Consumer<M>): Consumer<M> {
  return wrapConsumer((message: M) => holdingSends(() => consumer(message)), consumer)
}
