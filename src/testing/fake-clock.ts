import type { Clock } from '../internal/clock.ts'

interface ScheduledCall {
  readonly dueAt: number
  readonly callback: () => void
}

/**
 * A clock that stands still until a test advances it.
 *
 * @example
 * ```ts
 * const clock = new FakeClock()
 * const backend = new MemoryBackend({ clock, expiryMs: 1_000 })
 * await backend.send([{ channel: 'news', content: {} }])
 * await clock.advance(1_000)
 * await backend.channels() // []
 * ```
 */
export class FakeClock implements Clock {
  #now: number
  /** In the order of scheduling, which decides between calls due at the same time. */
  readonly #scheduled = new Set<ScheduledCall>()

  /** @param startMs - the first time shown, in milliseconds since the epoch. */
  constructor(startMs = Date.UTC(2025, 0, 1)) {
    this.#now = startMs
  }

  now(): number {
    return this.#now
  }

  elapsed(): number {
    return this.now()
  }

  /** How many calls are scheduled and have not run. */
  get scheduledCount(): number {
    return this.#scheduled.size
  }

  schedule(callback: () => void, delayMs: number): () => void {
    const call = { dueAt: this.#now + Math.max(0, delayMs), callback }
    this.#scheduled.add(call)
    return () => {
      this.#scheduled.delete(call)
    }
  }

  /**
   * Moves time on by `ms`, 0 or more, running what falls due at its time and in order. Promises
   * settle before the first call, after each, and before this resolves.
   */
  async advance(ms: number): Promise<void> {
    if (!(ms >= 0 && Number.isFinite(ms))) {
      throw new RangeError(`a clock cannot advance by ${ms} ms; give 0 or more`)
    }
    const target = this.#now + ms
    await turn()
    for (let call = this.#next(target); call; call = this.#next(target)) {
      this.#scheduled.delete(call)
      this.#now = Math.max(this.#now, call.dueAt)
      call.callback()
      await turn()
    }
    this.#now = Math.max(this.#now, target)
    await turn()
  }

  #next(target: number): ScheduledCall | undefined {
    let next: ScheduledCall | undefined
    for (const call of this.#scheduled) {
      if (call.dueAt <= target && (!next || call.dueAt < next.dueAt)) next = call
    }
    return next
  }
}

/** One turn of the event loop, by whose end every settled promise has been carried on. */
function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}
