import { onAbort } from '../../internal/abort-listeners.ts'
import type { Clock } from '../../internal/clock.ts'

/** Why a wait ended: something may have come, or its time is over. */
export type WaitEnd = 'look' | 'late'

/**
 * The wait of one receive: ends by a wake-up, by its time, by its signal or by an error from
 * outside. A wake-up that comes while nobody waits counts for the next wait.
 */
export class Wait {
  readonly #signal: AbortSignal | undefined
  readonly #cancelTimer: (() => void) | undefined
  readonly #ignoreAbort: (() => void) | undefined
  #isLate = false
  #isWoken = false
  #error: { readonly error: unknown } | undefined
  #settle: (() => void) | undefined

  constructor(clock: Clock, waitMs: number, signal: AbortSignal | undefined) {
    this.#signal = signal
    if (waitMs > 0 && Number.isFinite(waitMs)) {
      this.#cancelTimer = clock.schedule(() => {
        this.#isLate = true
        this.#settle?.()
      }, waitMs)
    }
    this.#ignoreAbort = signal && onAbort(signal, () => this.#settle?.())
  }

  /** Whether it is to end with nothing: by its time, its signal or an error. */
  get isOver(): boolean {
    return this.#isLate || this.#error !== undefined || this.#signal?.aborted === true
  }

  wake(): void {
    this.#isWoken = true
    this.#settle?.()
  }

  fail(error: unknown): void {
    this.#error ??= { error }
    this.#settle?.()
  }

  /** What came before this counts no more. */
  reset(): void {
    this.#isWoken = false
  }

  /** @throws the signal's reason, or the error from outside. */
  async next(): Promise<WaitEnd> {
    if (!this.#isWoken && !this.isOver) {
      await new Promise<void>((resolve) => {
        this.#settle = resolve
      })
      this.#settle = undefined
    }
    this.throwIfOver()
    return this.#isLate ? 'late' : 'look'
  }

  throwIfOver(): void {
    this.#signal?.throwIfAborted()
    if (this.#error) throw this.#error.error
  }

  end(): void {
    this.#cancelTimer?.()
    this.#ignoreAbort?.()
  }
}
