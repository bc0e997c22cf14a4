/**
 * Where time comes from. Everything in Channelkit that waits or expires asks a clock, so that tests
 * can advance it instead of sleeping (`FakeClock` in `channelkit/testing`).
 */
export interface Clock {
  /** Milliseconds since the epoch. */
  now(): number
  /** Milliseconds since some moment, never set back or forward: for how long things take. */
  elapsed(): number
  /**
   * Runs `callback` once, `delayMs` from now, without keeping the process alive.
   * @returns a function that cancels it; calling it late is harmless.
   */
  schedule(callback: () => void, delayMs: number): () => void
}

// setTimeout fires at once for a longer delay than this.
const longestDelayMs = 2_147_483_647

/** The machine's clock. */
export const systemClock: Clock = {
  now: Date.now,
  elapsed: () => performance.now(),
  schedule(callback, delayMs) {
    const timer = setTimeout(callback, Math.min(delayMs, longestDelayMs))
    timer.unref()
    return () => clearTimeout(timer)
  },
}

/** Runs `task` every `intervalMs` until the returned function is called. */
export function repeat(clock: Clock, task: () => void, intervalMs: number): () => void {
  let cancel = clock.schedule(run, intervalMs)
  function run(): void {
    cancel = clock.schedule(run, intervalMs)
    task()
  }
  return () => cancel()
}
