import { AsyncLocalStorage } from 'node:async_hooks'
import { type Consumer, consumerName, nameConsumer } from './consumer.ts'
import { type Content, copyContent, measureContent } from './content.ts'

type HeldSend = () => Promise<void>

const held = new AsyncLocalStorage<HeldSend[]>()

/**
 * Wraps a consumer so that what it sends becomes visible only after it has succeeded, in the order
 * of its calls, and not at all when it throws. `send(content, { immediately: true })` is not held.
 *
 * An `await` on a held send resolves at once, so a full channel shows only at the end, as the
 * failure of the whole consumer. Changes of group membership are not held.
 */
export function holdSends<M>(consumer: Consumer<M>): Consumer<M> {
  const holding = async (message: M): Promise<void> => {
    const sends: HeldSend[] = []
    await held.run(sends, async () => consumer(message))
    const results = await Promise.allSettled(sends.map((send) => send()))
    for (const result of results) if (result.status === 'rejected') throw result.reason
  }
  return nameConsumer(holding, consumerName(consumer))
}

/**
 * Passes `content` to `send` now, or a copy of it at the end of the consumer that
 * {@link holdSends} wraps.
 */
export function holdSend(
  content: Content,
  options: { readonly immediately?: boolean } | undefined,
  send: (content: Content) => Promise<void>,
): Promise<void> {
  const sends = options?.immediately ? undefined : held.getStore()
  if (!sends) return send(content)
  try {
    measureContent(content)
  } catch (error) {
    return Promise.reject(error)
  }
  const copy = copyContent(content)
  sends.push(() => send(copy))
  return Promise.resolve()
}
