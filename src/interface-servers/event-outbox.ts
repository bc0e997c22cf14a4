import type { ChannelBackend, OutgoingMessage } from '../backends/channel-backend.ts'
import type { Content } from '../content.ts'
import { type ChannelkitError, isChannelkitError } from '../errors.ts'
import { Backoff } from '../internal/backoff.ts'
import type { Counters } from '../internal/counters.ts'
import type { Logger } from '../logger.ts'

/** One client whose events must reach their channels in the order in which they happened. */
export interface EventSource {
  /** Called when events wait that the backend did not take, or too many: read no more for now. */
  holdReading(): void
  /** Called when all its events are with the backend. */
  resumeReading(): void
  /** Called when the backend will never take one of its events, for a fault of its content. */
  refuseEvent(error: ChannelkitError): void
}

/** A client's events that are not with the backend yet, oldest first. */
class Line {
  readonly source: EventSource
  readonly events: OutgoingMessage[] = []
  isHeld = false

  constructor(source: EventSource) {
    this.source = source
  }
}

// A client that is further ahead than this is not read from until its events are with the backend.
const maxEventsPerClient = 64
// Bounds one call to the backend, and with it a transaction or script there.
const maxBatch = 1_000

/**
 * Sends clients' events to their channels: all that happen while a batch is under way make the
 * next one, so a slow backend is asked less often, not more.
 *
 * A client's event that its channel has no room for stays here, first in its line, and the client
 * is not read from until it is taken: nothing is dropped and nothing overtakes it.
 */
export class EventOutbox {
  readonly #backend: ChannelBackend
  readonly #counters: Counters
  readonly #logger: Logger
  readonly #lines = new Map<EventSource, Line>()
  readonly #backoff: Backoff
  /** Lines with events for the next batch. Every line is here, in `#refused`, or being sent. */
  #ready: Line[] = []
  /** Lines whose first event was refused. */
  readonly #refused: Line[] = []
  #isSending = false
  #isScheduled = false
  #isClosed = false
  readonly #idle: (() => void)[] = []

  constructor(backend: ChannelBackend, counters: Counters, logger: Logger) {
    this.#backend = backend
    this.#counters = counters
    this.#logger = logger
    this.#backoff = new Backoff(backend.limits.clock, { firstMs: 5, longestMs: 500 })
  }

  /** Puts one event at the end of its client's line. */
  add(source: EventSource, channel: string, content: Content): void {
    let line = this.#lines.get(source)
    if (!line) {
      line = new Line(source)
      this.#lines.set(source, line)
      this.#ready.push(line)
    }
    line.events.push({ channel, content, handsOver: true })

    if (line.events.length > maxEventsPerClient) this.#hold(line)
    this.#schedule()
  }

  /** Resolves when every event added so far is with the backend, or given up after `close`. */
  async drained(): Promise<void> {
    if (this.#lines.size === 0) return
    await new Promise<void>((resolve) => this.#idle.push(resolve))
  }

  /** Gives up what waits; counted as `dropped.shutdown`. */
  close(): void {
    this.#isClosed = true
    for (const line of this.#lines.values()) {
      this.#counters.add('dropped.shutdown', line.events.length)
    }
    this.#ready = []
    this.#lines.clear()
    this.#settleIdle()
  }

  /** At the end of this turn of the event loop: what all sockets were read for in it goes along. */
  #schedule(): void {
    if (this.#isSending || this.#isScheduled) return
    this.#isScheduled = true
    setImmediate(() => {
      this.#isScheduled = false
      void this.#sendAll()
    })
  }

  async #sendAll(): Promise<void> {
    if (this.#isSending) return
    this.#isSending = true
    while (this.#ready.length > 0 && !this.#isClosed) {
      const { batch, spans } = this.#nextBatch()
      this.#settle(spans, await this.#sendBatch(batch, spans))
    }
    this.#isSending = false
    if (this.#lines.size === 0) this.#settleIdle()
  }

  /**
   * Takes each ready line's events up to the first that goes to another channel: a refused event
   * then never lets a later one of the same client through.
   */
  #nextBatch(): { batch: OutgoingMessage[]; spans: Span[] } {
    const batch: OutgoingMessage[] = []
    const spans: Span[] = []
    const lines = this.#ready
    let index = 0
    for (; index < lines.length && batch.length < maxBatch; index++) {
      const line = lines[index] as Line
      const start = batch.length
      const channel = line.events[0]?.channel
      for (const event of line.events) {
        if (event.channel !== channel || batch.length === maxBatch) break
        batch.push(event)
      }
      spans.push({ line, start, count: batch.length - start })
    }
    this.#ready = lines.slice(index)
    return { batch, spans }
  }

  /** @returns the indexes of events to be sent again, if any. */
  async #sendBatch(
    batch: readonly OutgoingMessage[],
    spans: readonly Span[],
  ): Promise<ReadonlySet<number> | undefined> {
    let again: Set<number> | undefined
    try {
      for (const { index, error } of await this.#backend.send(batch)) {
        if (error.code === 'ERR_CHANNEL_FULL') {
          again ??= new Set()
          again.add(index)
          this.#counters.add('held.full')
        } else {
          this.#counters.add('dropped.refused')
          spans.findLast(({ start }) => start <= index)?.line.source.refuseEvent(error)
        }
      }
      if (!again) this.#backoff.succeeded()
    } catch (error) {
      if (!isChannelkitError(error, 'ERR_BACKEND_UNAVAILABLE')) {
        this.#counters.add('dropped.refused', batch.length)
        this.#logger.error({ err: error }, 'events are dropped')
        return undefined
      }
      if (!this.#backoff.isFailing) {
        this.#logger.error({ err: error }, 'channel backend is away; clients wait')
      }
      again = new Set(batch.keys())
    }
    return again
  }

  #settle(spans: readonly Span[], again: ReadonlySet<number> | undefined): void {
    if (this.#isClosed) return
    for (const { line, start, count } of spans) {
      const tried = line.events.splice(0, count)
      const refused = again ? tried.filter((_, place) => again.has(start + place)) : []
      if (refused.length > 0) {
        line.events.unshift(...refused)
        this.#hold(line)
        this.#tryAgainLater(line)
      } else if (line.events.length > 0) {
        this.#ready.push(line)
      } else {
        this.#lines.delete(line.source)
        if (line.isHeld) line.source.resumeReading()
      }
    }
  }

  /** Refused lines wait together; the others go on meanwhile. */
  #tryAgainLater(line: Line): void {
    this.#refused.push(line)
    if (this.#refused.length > 1) return
    this.#backend.limits.clock.schedule(() => {
      this.#ready.push(...this.#refused.splice(0))
      this.#schedule()
    }, this.#backoff.nextMs())
  }

  #hold(line: Line): void {
    if (line.isHeld) return
    line.isHeld = true
    line.source.holdReading()
  }

  #settleIdle(): void {
    for (const resolve of this.#idle.splice(0)) resolve()
  }
}

/** The part of a batch that is one line's. */
interface Span {
  readonly line: Line
  readonly start: number
  readonly count: number
}
