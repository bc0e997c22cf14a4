import { AsyncLocalStorage } from 'node:async_hooks'
import { type Consumer, wrapConsumer } from './consumer.ts'
import { type Content, copyContent, measureContent } from './content.ts'

/** One send, in two steps. */
interface HeldSend {
  readonly check: () => Promise<Content>
  readonly send: (content: Content) => Promise<void>
}

/** What one run of a consumer has sent; none once it has ended, when nothing would let them go. */
interface HeldRun {
  sends: HeldSend[] | undefined
}

const held = new AsyncLocalStorage<HeldRun>()

/**
 * Wraps a consumer so that what it sends becomes visible only after it has succeeded, in the order
 * of its calls, and not at all when it throws. `send(content, { immediately: true })` is not held.
 *
 * An `await` on a held send resolves at once, so a full channel shows only at the end, as the
 * failure of the whole consumer. Changes of group membership are not held, nor is what the consumer
 * left running sends after its end.
 */
export function holdSends<M>(consumer: Consumer<M>): Consumer<M> {
  const holding = async (message: M): Promise<void> => {
    const sends: HeldSend[] = []
    const run: HeldRun = { sends }
    try {
      await held.run(run, async () => consumer(message))
    } finally {
      run.sends = undefined
    }
    // All checks first, so that a slow one does not let later sends overtake.
    const checks = await Promise.allSettled(sends.map(({ check }) => check()))
    const results = await Promise.allSettled(
      checks.map((checked, index) =>
        checked.status === 'fulfilled'
          ? sends[index]?.send(checked.value)
          : Promise.reject(checked.reason),
      ),
    )
    for (const result of results) if (result.status === 'rejected') throw result.reason
  }
  return wrapConsumer(holding, consumer)
}

/** Whether a send made here and with these options is to be held. */
export function isHolding(options: { readonly immediately?: boolean } | undefined): boolean {
  return held.getStore()?.sends !== undefined && !options?.immediately
}

/**
 * Keeps a copy of `content` until the consumer that {@link holdSends} wraps has ended; then `check`
 * makes of it what `send` is given.
 */
export async function holdSend(
  content: Content,
  send: (content: Content) => Promise<void>,
  check: (content: Content) => Promise<Content> = async (unchecked) => unchecked,
): Promise<void> {
  measureContent(content)
  const copy = copyContent(content)
  held.getStore()?.sends?.push({ check: () => check(copy), send })
}
