import type { Clock } from '../../internal/clock.ts'
import type { Counters } from '../../internal/counters.ts'
import { randomName } from '../../names.ts'
import type {
  AdvancedLines,
  AdvanceOptions,
  IncomingMessage,
  LineOptions,
  LineTurn,
} from '../channel-backend.ts'
import { type MemoryStore, Queue, type StoredLine, type StoredMessage } from './memory-store.ts'

/**
 * The lines of a store: who has the turn of a reply channel, and what is parked behind it.
 *
 * A message goes to its channel's queue like any other. A receiver by lines meets it there, in the
 * order of its id among all channels that go through lines, and either takes it with the turn of
 * its line or parks it. What is parked goes from hand to hand by {@link advance}; only when the
 * holder does not consume its channel does it return to that channel's queue, as ready.
 */
export class MemoryLines {
  readonly #store: MemoryStore
  readonly #clock: Clock
  readonly #counters: Counters
  readonly #putBack: (message: IncomingMessage) => void
  readonly #tokenPrefix = randomName()
  #lastToken = 0
  #lookMs = Number.POSITIVE_INFINITY
  #stopLooking: (() => void) | undefined

  /** @param putBack - puts a message where its id belongs in its channel's queue, and wakes. */
  constructor(
    store: MemoryStore,
    clock: Clock,
    counters: Counters,
    putBack: (message: IncomingMessage) => void,
  ) {
    this.#store = store
    this.#clock = clock
    this.#counters = counters
    this.#putBack = putBack
  }

  /** Takes up to `most` messages whose turn it is, oldest first, and parks those it meets before. */
  take(options: LineOptions, most: number, now: number, taken: IncomingMessage[]): void {
    const { channels, elsewhere = [], leaseMs } = options
    const others = elsewhere.length > 0 ? this.#waitingOn(elsewhere) : []
    let seen = 0
    for (let left = most; left > 0; ) {
      const queue = this.#oldest(channels)
      const message = queue?.peek()
      if (!queue || !message) return
      for (; seen < others.length && isBefore(others[seen] as StoredMessage, message); seen++) {
        this.#lineUp(others[seen] as StoredMessage, now)
      }
      queue.shift()
      const admitted = this.#admit(message, now, now + leaseMs)
      if (!admitted) continue
      taken.push(admitted)
      left--
    }
  }

  advance(turns: readonly LineTurn[], { channels, leaseMs }: AdvanceOptions): AdvancedLines {
    const now = this.#clock.now()
    const messages: IncomingMessage[] = []
    const lost: LineTurn[] = []
    for (const turn of turns) {
      const line = this.#store.lines.get(turn.line)
      if (line?.token !== turn.token) {
        lost.push(turn)
        continue
      }
      const next = this.#unpark(line, now)
      if (!next) this.#store.lines.delete(turn.line)
      else if (channels.includes(next.channel)) {
        messages.push(withTurn(next, this.#give(turn.line, line, now + leaseMs)))
      } else this.#makeReady(line, next)
    }
    return { messages, lost }
  }

  renew(turns: readonly LineTurn[], leaseMs: number): readonly LineTurn[] {
    const expiresAt = this.#clock.now() + leaseMs
    return turns.flatMap((turn) => {
      const line = this.#store.lines.get(turn.line)
      if (line?.token !== turn.token) return []
      line.expiresAt = expiresAt
      return [{ ...turn, expiresAt }]
    })
  }

  /** Makes a message the ready head of its line again, unless the line went on without it. */
  handBack({ turn, ...message }: IncomingMessage): void {
    const line = turn && this.#store.lines.get(turn.line)
    if (line && line.token === turn?.token) this.#makeReady(line, message)
    else this.#counters.add('lapsed')
  }

  /** Whether a turn has lapsed or was passed on. */
  isLost({ line, token }: LineTurn): boolean {
    return this.#store.lines.get(line)?.token !== token
  }

  /** How many messages for a channel are parked. */
  parkedOn(channel: string): number {
    return this.#store.parkedCounts.get(channel)?.count ?? 0
  }

  /** About how much memory they take. */
  parkedBytesOn(channel: string): number {
    return this.#store.parkedCounts.get(channel)?.bytes ?? 0
  }

  /** How many messages of one line are parked for a channel. */
  parkedInLine(line: string, channel: string): number {
    let count = 0
    for (const message of this.#store.lines.get(line)?.parked ?? []) {
      if (message.channel === channel) count++
    }
    return count
  }

  /** Deletes expired messages that are parked, and lets lines go on whose turn or head lapsed. */
  cleanUp(now: number): number {
    let count = 0
    for (const line of this.#store.lines.values()) {
      for (const message of line.parked) {
        if (message.expiresAt <= now) this.#countParked(message, -1)
      }
      count += line.parked.filter(({ expiresAt }) => expiresAt > now)
    }
    this.#release(now)
    return count
  }

  /** From now on lapsed turns are noticed by a timer too, at their time. */
  look(leaseMs: number): void {
    this.#lookMs = Math.min(this.#lookMs, leaseMs)
    this.#stopLooking ??= this.#clock.schedule(this.#onLook, this.#lookMs)
  }

  close(): void {
    this.#stopLooking?.()
  }

  readonly #onLook = (): void => {
    const now = this.#clock.now()
    this.#release(now)
    let next = now + this.#lookMs
    for (const { expiresAt } of this.#store.lines.values()) next = Math.min(next, expiresAt)
    this.#stopLooking = this.#clock.schedule(this.#onLook, next - now)
  }

  #release(now: number): void {
    for (const [name, line] of this.#store.lines) {
      if (line.expiresAt <= now || this.#hasLostHead(line)) this.#goOn(name, line, now)
    }
  }

  /** Whether a ready head was taken by a receiver that does not go by lines. */
  #hasLostHead({ ready }: StoredLine): boolean {
    if (!ready) return false
    for (const { id } of this.#store.channels.get(ready.channel) ?? []) {
      if (id === ready.id) return false
    }
    return true
  }

  #admit(message: StoredMessage, now: number, expiresAt: number): IncomingMessage | undefined {
    const name = message.content.reply_channel
    if (typeof name !== 'string') {
      if (message.expiresAt > now) return withTurn(message)
      this.#counters.add('dropped.expired')
      return undefined
    }
    let line = this.#store.lines.get(name)
    if (message.expiresAt <= now) {
      this.#counters.add('dropped.expired')
      if (line?.ready?.id === message.id) this.#goOn(name, line, now)
      return undefined
    }
    if (line && line.expiresAt <= now) {
      this.#goOn(name, line, now)
      line = this.#store.lines.get(name)
    }
    if (!line) {
      line = { token: undefined, expiresAt, ready: undefined, parked: new Queue() }
      this.#store.lines.set(name, line)
    } else if (line.ready?.id !== message.id) {
      this.#park(line, message)
      return undefined
    }
    line.ready = undefined
    return withTurn(message, this.#give(name, line, expiresAt))
  }

  /** Finds a message that others receive its place in its line. */
  #lineUp(message: StoredMessage, now: number): void {
    const name = message.content.reply_channel
    if (typeof name !== 'string' || message.expiresAt <= now) return
    const line = this.#store.lines.get(name)
    if (!line) {
      const { id, channel, expiresAt } = message
      const parked = new Queue<StoredMessage>()
      const ready = { id, channel }
      this.#store.lines.set(name, { token: undefined, expiresAt, ready, parked })
    } else if (line.ready?.id !== message.id) {
      this.#store.channels.get(message.channel)?.filter(({ id }) => id !== message.id)
      this.#park(line, message)
    }
  }

  #give(name: string, line: StoredLine, expiresAt: number): LineTurn {
    this.#lastToken++
    const token = `${this.#tokenPrefix}.${this.#lastToken}`
    line.token = token
    line.expiresAt = expiresAt
    return { line: name, token, expiresAt }
  }

  /** Ends a turn that nobody passed on, or the wait for a head that is gone. */
  #goOn(name: string, line: StoredLine, now: number): void {
    if (line.token !== undefined) this.#counters.add('lapsed')
    const next = this.#unpark(line, now)
    if (next) this.#makeReady(line, next)
    else this.#store.lines.delete(name)
  }

  #makeReady(line: StoredLine, message: IncomingMessage): void {
    const { id, channel, expiresAt } = message
    line.token = undefined
    line.ready = { id, channel }
    line.expiresAt = expiresAt
    this.#putBack(message)
  }

  #park(line: StoredLine, message: StoredMessage): void {
    line.parked.insertFromTail(message, isBefore)
    this.#countParked(message, 1)
  }

  #unpark(line: StoredLine, now: number): StoredMessage | undefined {
    for (;;) {
      const message = line.parked.shift()
      if (!message) return undefined
      this.#countParked(message, -1)
      if (message.expiresAt > now) return message
      this.#counters.add('dropped.expired')
    }
  }

  #countParked({ channel, bytes: ownBytes }: StoredMessage, by: 1 | -1): void {
    const count = this.parkedOn(channel) + by
    const bytes = this.parkedBytesOn(channel) + by * ownBytes
    if (count > 0) this.#store.parkedCounts.set(channel, { count, bytes })
    else this.#store.parkedCounts.delete(channel)
  }

  #oldest(channels: readonly string[]): Queue<StoredMessage> | undefined {
    let oldest: Queue<StoredMessage> | undefined
    let first: IncomingMessage | undefined
    for (const channel of channels) {
      const queue = this.#store.channels.get(channel)
      const head = queue?.peek()
      if (head && (!first || isBefore(head, first))) [oldest, first] = [queue, head]
    }
    return oldest
  }

  #waitingOn(channels: readonly string[]): readonly StoredMessage[] {
    const queues = channels.map((channel) => [...(this.#store.channels.get(channel) ?? [])])
    return queues.flat().sort((a, b) => (isBefore(a, b) ? -1 : 1))
  }
}

/** The message as its receiver gets it. */
export function withTurn(message: IncomingMessage, turn?: LineTurn): IncomingMessage {
  const { id, channel, content, expiresAt, attempts } = message
  if (!turn) return { id, channel, content, expiresAt, attempts }
  return { id, channel, content, expiresAt, attempts, turn }
}

function isBefore(message: IncomingMessage, other: IncomingMessage): boolean {
  return message.id < other.id
}
