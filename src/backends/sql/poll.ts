import type { OnChange, SqlWatch } from './sql-client.ts'

/** How often to look, in milliseconds. */
export interface PollPace {
  /** After something was found. */
  readonly fastestMs: number
  /** What the time between two looks grows to while nothing is found. */
  readonly slowestMs: number
  /** While signs come from elsewhere, in case one is lost. */
  readonly restMs: number
}

export const defaultPace: PollPace = { fastestMs: 2, slowestMs: 100, restMs: 2_000 }

const growth = 1.5

/** Looks now and then: soon after something was found, seldom while nothing is. */
export class Poll implements SqlWatch {
  readonly #pace: PollPace
  readonly #onChange: OnChange
  #delayMs: number
  #timer: NodeJS.Timeout | undefined
  #isActive = false
  #isResting = false
  #isStopped = false

  constructor(onChange: OnChange, pace: PollPace = defaultPace) {
    this.#onChange = onChange
    this.#pace = pace
    this.#delayMs = pace.fastestMs
  }

  get isActive(): boolean {
    return this.#isActive
  }

  resume(): void {
    if (this.#isStopped) return
    this.#isActive = true
    if (this.#timer) this.#timer.ref()
    else this.#schedule()
  }

  pause(): void {
    this.#isActive = false
    this.#timer?.unref()
  }

  foundSome(): void {
    this.#delayMs = this.#pace.fastestMs
    if (!this.#isResting && this.#isActive) this.#schedule()
  }

  /** Told whether signs come from elsewhere now. */
  rest(isResting: boolean): void {
    if (isResting === this.#isResting) return
    this.#isResting = isResting
    this.#delayMs = this.#pace.fastestMs
    if (this.#isActive) this.#schedule()
  }

  /** Passes a sign on, unless nobody waits. */
  sign(channels?: ReadonlySet<string>): void {
    if (this.#isActive) this.#onChange(channels)
  }

  stop(): void {
    this.#isStopped = true
    this.#isActive = false
    clearTimeout(this.#timer)
    this.#timer = undefined
  }

  #schedule(): void {
    clearTimeout(this.#timer)
    if (this.#isStopped) return
    const { slowestMs, restMs } = this.#pace
    this.#timer = setTimeout(
      () => {
        this.#timer = undefined
        if (!this.#isActive) return
        this.#schedule()
        this.#onChange()
      },
      this.#isResting ? restMs : this.#delayMs,
    )
    this.#delayMs = Math.min(this.#delayMs * growth, slowestMs)
  }
}
