import { type Clock, systemClock } from '../internal/clock.ts'

/**
 * The server's clock, so that processes on machines whose clocks differ agree on what has
 * expired. Until it was first read, and where it moves between two readings, this machine's.
 */
export class ServerClock implements Clock {
  #offsetMs = Date.now() - performance.now()

  now(): number {
    return Math.round(performance.now() + this.#offsetMs)
  }

  elapsed(): number {
    return systemClock.elapsed()
  }

  schedule(callback: () => void, delayMs: number): () => void {
    return systemClock.schedule(callback, delayMs)
  }

  /**
   * Takes on what the server said.
   *
   * @param serverMs - its time, in milliseconds since the epoch.
   * @param askedAt - when it was asked, by `performance.now()`.
   */
  set(serverMs: number, askedAt: number): void {
    const answeredAt = performance.now()
    this.#offsetMs = serverMs - (askedAt + answeredAt) / 2
  }
}
