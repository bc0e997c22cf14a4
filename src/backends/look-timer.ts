import type { Clock } from '../internal/clock.ts'
import { shortestLookMs } from './later.ts'

/** How long after a look that failed comes the next. */
const retryMs = 500

export interface LookTimerOptions {
  readonly clock: Clock
  /** Does what is due by now; resolves with when the next comes, in milliseconds since the epoch. */
  readonly look: () => Promise<number>
}

/**
 * One timer for all that falls due in a store: turns and holds that lapse, and messages whose time
 * comes. It looks at the time of the first, and every `most` milliseconds besides, since other
 * processes store as well.
 */
export class LookTimer {
  readonly #options: LookTimerOptions
  #longestMs = Number.POSITIVE_INFINITY
  #nextAt = Number.POSITIVE_INFINITY
  #cancel: (() => void) | undefined
  #isLooking = false
  #isStopped = false

  constructor(options: LookTimerOptions) {
    this.#options = options
  }

  /** Looks at least every `ms` milliseconds from now on. */
  atLeastEvery(ms: number): void {
    if (ms >= this.#longestMs) return
    this.#longestMs = ms
    this.by(this.#options.clock.now() + ms)
  }

  /** Looks at `time` at the latest. */
  by(time: number): void {
    if (this.#isStopped || time >= this.#nextAt) return
    this.#nextAt = time
    this.#cancel?.()
    this.#cancel = undefined
    if (!this.#isLooking) this.#schedule()
  }

  stop(): void {
    this.#isStopped = true
    this.#cancel?.()
    this.#cancel = undefined
  }

  #schedule(): void {
    if (this.#isStopped) return
    const { clock } = this.#options
    const untilMs = Math.max(shortestLookMs, this.#nextAt - clock.now())
    this.#cancel = clock.schedule(() => void this.#look(), untilMs)
  }

  async #look(): Promise<void> {
    const { clock, look } = this.#options
    this.#isLooking = true
    this.#nextAt = Number.POSITIVE_INFINITY
    let nextAt: number
    try {
      nextAt = await look()
    } catch {
      // The store is away: a later look will do.
      nextAt = clock.now() + retryMs
    }
    this.#isLooking = false
    this.#nextAt = Math.min(this.#nextAt, nextAt, clock.now() + this.#longestMs)
    if (Number.isFinite(this.#nextAt)) this.#schedule()
  }
}
