import { AsyncLocalStorage } from 'node:async_hooks'
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
 * Runs `consume` and holds what it sends; when it has succeeded, lets go of it in the order of the
 * calls.
 *
 * @param mayStillSend - is asked when all is ready to go; what it throws drops it all.
 * @throws the first error of a held send, when all have been tried.
 */
export async function holdingSends(
  consume: () => void | Promise<void>,
  mayStillSend: () => void = () => {},
): Promise<void> {
  const sends: HeldSend[] = []
  const run: HeldRun = { sends }
  try {
    await held.run(run, async () => consume())
  } finally {
    run.sends = undefined
  }
  // All checks first, so that a slow one does not let later sends overtake.
  const checks = await Promise.allSettled(sends.map(({ check }) => check()))
  if (sends.length > 0) mayStillSend()
  const results = await Promise.allSettled(
    checks.map((checked, index) =>
      checked.status === 'fulfilled'
        ? sends[index]?.send(checked.value)
        : Promise.reject(checked.reason),
    ),
  )
  for (const result of results) if (result.status === 'rejected') throw result.reason
}

/** Whether a send made here and with these options is to be held. */
export function isHolding(options: { readonly immediately?: boolean } | undefined): boolean {
  return held.getStore()?.sends !== undefined && !options?.immediately
}

/**
 * Keeps a copy of `content` until what {@link holdingSends} runs has ended; then `check`
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
