import type { ChannelBackend, OutgoingMessage, SendFailure } from '../backends/channel-backend.ts'
import type { Content } from '../content.ts'
import { type ChannelkitError, isChannelkitError } from '../errors.ts'
import { Backoff } from '../internal/backoff.ts'
import type { Counters } from '../internal/counters.ts'
import type { Logger } from '../logger.ts'
import { randomName } from '../names.ts'

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
  /** About how many bytes `events` hold. */
  bytes = 0
  isHeld = false

  constructor(source: EventSource) {
    this.source = source
  }
}

/** A channel that had no room, and the clients whose next event goes to it. */
class FullChannel {
  /** In the order of their turns. */
  readonly lines: Line[] = []
  /** How many events to offer next: grows while they are taken, so that room is found soon. */
  offer = firstOffer
  retryMs = shortestRetryMs
  /** Whether its turn to be offered events has come. */
  isDue = false
}

// A client that is further ahead than this is not read from until its events are with the backend.
const maxEventsPerClient = 64
const maxBytesPerClient = 262_144
// All clients together; beyond it every client that sends is held.
const maxBytes = 67_108_864
// What an event holds beside its message.
const eventBytes = 300
// Bounds one call to the backend, and with it a transaction or script there.
const maxBatch = 1_000
const firstOffer = 16
// How many events one client may place before the next that waits for the same channel.
const eventsPerTurn = 8
// A full channel is offered events again after a time between these.
const shortestRetryMs = 1
const longestRetryMs = 25

/**
 * Sends clients' events to their channels: all that happen while a batch is under way make the
 * next one, so a slow backend is asked less often, not more.
 *
 * A client's event that its channel has no room for stays here, first in its line, and the client
 * is not read from until it is taken: nothing is dropped and nothing overtakes it. The clients that
 * wait for one channel take turns, and those whose events go elsewhere do not notice.
 *
 * A line is in one place at a time: `#ready`, waiting for a full channel, waiting for the backend,
 * or in the batch under way.
 */
export class EventOutbox {
  readonly #backend: ChannelBackend
  readonly #counters: Counters
  readonly #logger: Logger
  readonly #isAbandoned: (channel: string) => boolean
  readonly #lines = new Map<EventSource, Line>()
  /** Counts failures of the backend as a whole, not full channels. */
  readonly #backoff: Backoff
  #ready: Line[] = []
  readonly #full = new Map<string, FullChannel>()
  /** The batch that failed because the backend is away: sent again as it is before any other. */
  #failed: Batch | undefined
  /** Tells this outbox's batches from all others. */
  readonly #name = randomName()
  #batches = 0
  #isAway = false
  #bytes = 0
  #isSending = false
  #isScheduled = false
  #isClosed = false
  readonly #idle: (() => void)[] = []

  /**
   * @param isAbandoned - whether nobody consumes a channel: then an event it has no room for is
   *   dropped, counted as `dropped.not-consumed`, instead of holding its client.
   */
  constructor(
    backend: ChannelBackend,
    counters: Counters,
    logger: Logger,
    isAbandoned: (channel: string) => boolean = () => false,
  ) {
    this.#isAbandoned = isAbandoned
    this.#backend = backend
    this.#counters = counters
    this.#logger = logger
    this.#backoff = new Backoff(backend.limits.clock, { firstMs: 20, longestMs: 1_000 })
  }

  /** Puts one event at the end of its client's line. */
  add(source: EventSource, channel: string, content: Content): void {
    if (this.#isClosed) {
      this.#counters.add('dropped.shutdown')
      return
    }
    let line = this.#lines.get(source)
    if (!line) {
      line = new Line(source)
      this.#lines.set(source, line)
      this.#ready.push(line)
    }
    const event = { channel, content, handsOver: true }
    const bytes = sizeOf(event)
    line.events.push(event)
    line.bytes += bytes
    this.#bytes += bytes
    if (
      line.events.length > maxEventsPerClient ||
      line.bytes > maxBytesPerClient ||
      this.#bytes > maxBytes
    ) {
      this.#hold(line)
    }
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
    this.#failed = undefined
    this.#full.clear()
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
    while (!this.#isClosed && !this.#isAway) {
      const batch = this.#failed ?? this.#nextBatch()
      if (batch.events.length === 0) break
      await this.#sendBatch(batch)
    }
    this.#isSending = false
    if (this.#lines.size === 0) this.#settleIdle()
  }

  /**
   * Takes the events of ready lines, and of lines that wait for a channel whose turn has come. Of a
   * line only those up to the first that goes to another channel: a refused event then never lets
   * a later one of the same client through.
   */
  #nextBatch(): Batch {
    const batch: Batch = { number: ++this.#batches, events: [], spans: [] }
    for (const full of this.#full.values()) {
      // Where the batch is full before its turn, the turn remains.
      if (!full.isDue || batch.events.length >= maxBatch) continue
      full.isDue = false
      const end = Math.min(maxBatch, batch.events.length + full.offer)
      while (full.lines.length > 0 && batch.events.length < end) {
        take(batch, full.lines.shift() as Line, Math.min(end, batch.events.length + eventsPerTurn))
      }
    }
    const lines = this.#ready
    let index = 0
    for (; index < lines.length && batch.events.length < maxBatch; index++) {
      const line = lines[index] as Line
      const full = this.#full.get(line.events[0]?.channel ?? '')
      if (full) {
        full.lines.push(line)
        this.#hold(line)
      } else {
        take(batch, line, maxBatch)
      }
    }
    this.#ready = lines.slice(index)
    return batch
  }

  async #sendBatch(batch: Batch): Promise<void> {
    try {
      const mark = { sender: this.#name, number: batch.number }
      const failures = await this.#backend.send(batch.events, { mark })
      this.#backoff.succeeded()
      if (this.#isClosed) return
      this.#settle(batch, failures)
      if (this.#failed === batch) this.#goOnAfterOutage()
    } catch (error) {
      if (this.#isClosed) return
      if (isChannelkitError(error, 'ERR_BACKEND_UNAVAILABLE')) {
        this.#waitForBackend(batch, error)
        return
      }
      const isInDoubt = isChannelkitError(error, 'ERR_BATCH_IN_DOUBT')
      this.#counters.add(isInDoubt ? 'dropped.in-doubt' : 'dropped.refused', batch.events.length)
      this.#logger.error({ err: error }, 'events are dropped')
      this.#settle(batch, [])
      if (this.#failed === batch) this.#goOnAfterOutage()
    }
  }

  #settle(batch: Batch, failures: readonly SendFailure[]): void {
    const refused = new Set<number>()
    for (const { index, error } of failures) {
      if (error.code === 'ERR_CHANNEL_FULL') {
        if (this.#isAbandoned(batch.events[index]?.channel ?? '')) {
          this.#counters.add('dropped.not-consumed')
        } else {
          refused.add(index)
        }
      } else {
        this.#counters.add('dropped.refused')
        batch.spans.findLast(({ start }) => start <= index)?.line.source.refuseEvent(error)
      }
    }
    if (refused.size > 0) this.#counters.add('held.full', refused.size)
    const tries = new Map<string, { taken: number; refused: number }>()
    for (const { line, start, count } of batch.spans) {
      const tried = line.events.splice(0, count)
      const channel = tried[0]?.channel ?? ''
      const kept = refused.size > 0 ? tried.filter((_, place) => refused.has(start + place)) : []
      for (const [place, event] of tried.entries()) {
        if (refused.has(start + place)) continue
        const bytes = sizeOf(event)
        line.bytes -= bytes
        this.#bytes -= bytes
      }
      line.events.unshift(...kept)
      if (kept.length > 0 || this.#full.has(channel)) {
        const sum = tries.get(channel) ?? { taken: 0, refused: 0 }
        tries.set(channel, sum)
        sum.taken += tried.length - kept.length
        sum.refused += kept.length
      }
      this.#place(line, kept.length > 0 ? channel : undefined)
    }
    for (const [channel, { taken, refused: count }] of tries) {
      this.#afterTry(channel, taken, count)
    }
  }

  /** Puts a line where its next event belongs; `fullChannel` is the one that has just refused it. */
  #place(line: Line, fullChannel: string | undefined): void {
    if (fullChannel !== undefined) {
      let full = this.#full.get(fullChannel)
      if (!full) {
        full = new FullChannel()
        this.#full.set(fullChannel, full)
      }
      full.lines.push(line)
      this.#hold(line)
    } else if (line.events.length > 0) {
      this.#ready.push(line)
    } else {
      this.#lines.delete(line.source)
      if (line.isHeld) line.source.resumeReading()
    }
  }

  /** Decides when a channel that was full is offered events again, and how many. */
  #afterTry(channel: string, taken: number, refused: number): void {
    const full = this.#full.get(channel)
    if (!full) return
    if (refused === 0) {
      full.offer = Math.min(maxBatch, full.offer * 2)
      full.retryMs = shortestRetryMs
      if (full.lines.length === 0) this.#full.delete(channel)
      else full.isDue = true
      return
    }
    full.offer = Math.max(firstOffer, taken)
    full.retryMs = taken > 0 ? shortestRetryMs : Math.min(longestRetryMs, full.retryMs * 2)
    this.#backend.limits.clock.schedule(() => {
      full.isDue = true
      this.#schedule()
    }, full.retryMs)
  }

  #waitForBackend(batch: Batch, error: unknown): void {
    if (!this.#backoff.isFailing) {
      this.#logger.error({ err: error }, 'channel backend is away; clients wait')
    }
    for (const { line } of batch.spans) this.#hold(line)
    // It may be stored already: only the same batch with its mark is not stored twice.
    this.#failed = batch
    this.#isAway = true
    this.#backend.limits.clock.schedule(() => {
      this.#isAway = false
      this.#schedule()
    }, this.#backoff.nextMs())
  }

  #goOnAfterOutage(): void {
    this.#failed = undefined
    // What was full before may have room, and is found full again if not.
    for (const { lines } of this.#full.values()) this.#ready.unshift(...lines)
    this.#full.clear()
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

/** Events under way together. */
interface Batch {
  readonly number: number
  readonly events: OutgoingMessage[]
  readonly spans: Span[]
}

/** The part of a batch that is one line's. */
interface Span {
  readonly line: Line
  readonly start: number
  readonly count: number
}

/** Adds a line's next events to a batch, up to `end` and as long as they go to one channel. */
function take({ events, spans }: Batch, line: Line, end: number): void {
  const start = events.length
  const channel = line.events[0]?.channel
  for (const event of line.events) {
    if (event.channel !== channel || events.length === end) break
    events.push(event)
  }
  spans.push({ line, start, count: events.length - start })
}

function sizeOf({ content: { content } }: OutgoingMessage): number {
  const bytes =
    typeof content === 'string'
      ? content.length * 2
      : content instanceof Uint8Array
        ? content.byteLength
        : 0
  return bytes + eventBytes
}
