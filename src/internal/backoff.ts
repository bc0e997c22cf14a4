import type { Clock } from './clock.ts'

/**
 * Waits longer after each failure, up to `longestMs`, each time with a random quarter taken off so
 * that many processes do not come back at once.
 */
export class Backoff {
  readonly #clock: Clock
  readonly #firstMs: number
  readonly #longestMs: number
  #failures = 0

  constructor(clock: Clock, options: { readonly firstMs: number; readonly longestMs: number }) {
    this.#clock = clock
    this.#firstMs = options.firstMs
    this.#longestMs = options.longestMs
  }

  get isFailing(): boolean {
    return this.#failures > 0
  }

  succeeded(): void {
    this.#failures = 0
  }

  /** The next wait in milliseconds; counts one more failure. */
  nextMs(): number {
    const fullMs = Math.min(this.#longestMs, this.#firstMs * 2 ** this.#failures)
    this.#failures++
    return fullMs * (1 - Math.random() / 4)
  }

  /** Waits after a failure; ends early, without an error, when `signal` aborts. */
  async wait(signal?: AbortSignal): Promise<void> {
    const waitMs = this.nextMs()
    if (signal?.aborted) return
    await new Promise<void>((resolve) => {
      const done = (): void => {
        cancel()
        signal?.removeEventListener('abort', done)
        resolve()
      }
      const cancel = this.#clock.schedule(done, waitMs)
      signal?.addEventListener('abort', done, { once: true })
    })
  }
}
