import type { ChannelBackend } from '../backends/channel-backend.ts'
import { type Clock, repeat } from '../internal/clock.ts'
import type { Logger } from '../logger.ts'

// A worker that starts to consume a channel is noticed within this time.
const refreshMs = 2_000
// Asked for at once, but not by every waiting request.
const soonMs = 200

/** Knows, from the workers' announcements, which channels somebody consumes. */
export class ConsumedChannels {
  readonly #backend: ChannelBackend
  readonly #clock: Clock
  readonly #logger: Logger
  readonly #lastConsumed = new Map<string, number>()
  #now: ReadonlySet<string> = new Set()
  #sawWorker = false
  #refreshing: Promise<void> | undefined
  #refreshedAt = Number.NEGATIVE_INFINITY
  #stop: (() => void) | undefined

  constructor(backend: ChannelBackend, logger: Logger) {
    this.#backend = backend
    this.#clock = backend.limits.clock
    this.#logger = logger
  }

  async start(): Promise<void> {
    await this.refresh()
    this.#stop = repeat(this.#clock, () => void this.refresh(), refreshMs)
  }

  stop(): void {
    this.#stop?.()
  }

  /** Whether a worker that lives consumes the channel. */
  isConsumed(channel: string): boolean {
    return this.#now.has(channel)
  }

  /**
   * Whether an event is worth sending: not when workers live and none of them consumes its channel,
   * nor did until an expiry ago. With no worker in sight events wait for one.
   */
  isWorthSending(channel: string): boolean {
    if (!this.#sawWorker || this.#now.has(channel)) return true
    if (this.#clock.now() - this.#refreshedAt > soonMs) {
      // A worker that has just come may consume it: what is sent meanwhile waits for it.
      void this.refresh()
      return true
    }
    return !this.isAbandoned(channel)
  }

  /** Whether a worker consumes the channel, or did until an expiry ago and may be back. */
  isAwaited(channel: string): boolean {
    return this.#now.has(channel) || this.#wasConsumed(channel)
  }

  /** Whether workers live and none of them consumes the channel, nor did until an expiry ago. */
  isAbandoned(channel: string): boolean {
    if (!this.#sawWorker || this.#now.has(channel)) return false
    return !this.#wasConsumed(channel)
  }

  #wasConsumed(channel: string): boolean {
    const last = this.#lastConsumed.get(channel)
    return last !== undefined && this.#clock.now() - last < this.#backend.limits.expiryMs
  }

  /** Resolves true as soon as a worker consumes the channel, false after `waitMs`. */
  async awaitConsumer(channel: string, waitMs: number): Promise<boolean> {
    const deadline = this.#clock.now() + waitMs
    for (;;) {
      await this.refresh()
      if (this.#now.has(channel)) return true
      const leftMs = deadline - this.#clock.now()
      if (leftMs <= 0) return false
      await new Promise<void>((resolve) => this.#clock.schedule(resolve, Math.min(soonMs, leftMs)))
    }
  }

  refresh(): Promise<void> {
    if (this.#clock.now() - this.#refreshedAt < soonMs / 2) return Promise.resolve()
    this.#refreshing ??= this.#refresh().finally(() => {
      this.#refreshing = undefined
    })
    return this.#refreshing
  }

  async #refresh(): Promise<void> {
    try {
      const processes = await this.#backend.processes()
      const channels = new Set<string>()
      let sawWorker = false
      for (const { kind, channels: consumed } of processes) {
        if (kind !== 'worker') continue
        sawWorker = true
        for (const channel of consumed) channels.add(channel)
      }
      const now = this.#clock.now()
      // A worker that has just left may be back in a moment: its channels still count.
      for (const channel of this.#now) this.#lastConsumed.set(channel, now)
      this.#now = channels
      this.#sawWorker = sawWorker
      this.#refreshedAt = now
    } catch (error) {
      this.#logger.debug({ err: error }, 'the list of workers could not be read')
    }
  }
}
