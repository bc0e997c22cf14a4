import { copyContent, measureContent, storedDepth } from '../../content.ts'
import type { Counters } from '../../internal/counters.ts'
import { randomName } from '../../names.ts'
import type {
  BackendLimits,
  HeldMessage,
  HoldOptions,
  IncomingMessage,
  MessageHold,
  Settlement,
  SettleOutcome,
} from '../channel-backend.ts'
import { holdName, type LaterMessage, rememberMs } from '../later.ts'
import type { MemoryStore, StoredLater, StoredMessage } from './memory-store.ts'

type NewMessage = Omit<StoredMessage, 'id'>

/** The messages of a store that are not to be seen yet, by channel and name; see `later.ts`. */
export class MemoryLater {
  readonly #store: MemoryStore
  readonly #limits: BackendLimits
  readonly #counters: Counters
  readonly #deliver: (message: StoredMessage) => void
  readonly #tokenPrefix = randomName()
  #lastToken = 0

  /** @param deliver - puts a message where its id belongs in its channel's queue, and wakes. */
  constructor(
    store: MemoryStore,
    limits: BackendLimits,
    counters: Counters,
    deliver: (message: StoredMessage) => void,
  ) {
    this.#store = store
    this.#limits = limits
    this.#counters = counters
    this.#deliver = deliver
  }

  /** Keeps a message for later; false when there is no room. */
  add(message: NewMessage, { id, once, deliverAt }: LaterMessage): boolean {
    const key = keyOf(message.channel, id)
    if (this.#store.later.has(key)) return true
    const waiting = this.#store.delayedCounts.get(message.channel) ?? 0
    if (waiting >= this.#limits.delayedCapacity) return false
    this.#countDelayed(message.channel, 1)
    const stored = { ...message, id: this.#store.nextId++ }
    this.#store.later.set(key, { kind: once ? 'once' : 'delayed', message: stored, at: deliverAt })
    return true
  }

  cancel(channel: string, ids: readonly string[]): readonly boolean[] {
    return ids.map((id) => {
      const key = keyOf(channel, id)
      const found = this.#store.later.get(key)
      if (!found || !isDelayed(found.kind)) return false
      this.#countDelayed(channel, -1)
      return this.#store.later.delete(key)
    })
  }

  /** Keeps a copy of each message that was taken of some channels. */
  hold(
    messages: readonly IncomingMessage[],
    { channels, leaseMs }: HoldOptions,
  ): readonly IncomingMessage[] {
    return messages.map((message) => {
      if (!channels.includes(message.channel)) return message
      this.#lastToken++
      const token = `${this.#tokenPrefix}.${this.#lastToken}`
      const at = this.#limits.clock.now() + leaseMs
      const { turn: _turn, content, ...kept } = message
      this.#store.later.set(keyOf(message.channel, holdName(token)), {
        kind: 'held',
        message: {
          ...kept,
          content: copyContent(content),
          bytes: measureContent(content, storedDepth).memoryBytes,
        },
        at,
      })
      return { ...message, hold: { token, expiresAt: at } }
    })
  }

  /** Ends holds; `store` is asked to store what comes in their places at once. */
  settle(
    settlements: readonly Settlement[],
    store: (next: NonNullable<Settlement['next']>) => boolean,
  ): readonly SettleOutcome[] {
    return settlements.map(({ message, next }) => {
      const key = keyOf(message.channel, holdName(message.hold.token))
      const held = this.#store.later.get(key)
      if (held?.kind !== 'held') return 'lost'
      if (next && next.deliverAt === undefined && !store(next)) return 'full'
      this.#store.later.delete(key)
      if (next?.deliverAt !== undefined) this.#putOff(key, next, next.deliverAt)
      return 'settled'
    })
  }

  renew(messages: readonly HeldMessage[], leaseMs: number): readonly HeldMessage[] {
    const expiresAt = this.#limits.clock.now() + leaseMs
    return messages.flatMap((message) => {
      const held = this.#held(message)
      if (!held) return []
      held.at = expiresAt
      return [{ ...message, hold: { ...message.hold, expiresAt } }]
    })
  }

  /** Ends the hold of a message that is handed back; false when it had lapsed. */
  giveUp(message: HeldMessage): boolean {
    return this.#store.later.delete(keyOf(message.channel, holdName(message.hold.token)))
  }

  /** Puts what is due on its channel, in the order of the times. */
  release(now: number): void {
    const due = [...this.#store.later].filter(([, { at }]) => at <= now)
    due.sort(([, a], [, b]) => a.at - b.at || Number(a.message.id) - Number(b.message.id))
    for (const [key, { kind, message }] of due) {
      this.#store.later.delete(key)
      if (kind === 'spent') continue
      if (isDelayed(kind)) this.#countDelayed(message.channel, -1)
      if (kind === 'once') this.#remember(key, message, now)
      if (kind === 'held') {
        this.#counters.add('redelivered')
        const expiresAt = Math.max(message.expiresAt, now + this.#limits.expiryMs)
        this.#deliver({ ...message, expiresAt, attempts: message.attempts + 1 })
      } else if (message.expiresAt <= now) {
        this.#counters.add('dropped.expired')
      } else {
        this.#deliver({ ...message, id: this.#store.nextId++ })
      }
    }
  }

  /** When something is due next, in milliseconds since the epoch. */
  nextAt(): number {
    let next = Number.POSITIVE_INFINITY
    for (const { at } of this.#store.later.values()) if (at < next) next = at
    return next
  }

  #held({ channel, hold }: { channel: string; hold: MessageHold }): StoredLater | undefined {
    const found = this.#store.later.get(keyOf(channel, holdName(hold.token)))
    return found?.kind === 'held' ? found : undefined
  }

  #putOff(key: string, next: NonNullable<Settlement['next']>, at: number): void {
    const { channel, content, attempts = 0, expiresAt = at + this.#limits.expiryMs } = next
    const { memoryBytes: bytes } = measureContent(content, storedDepth)
    const copy = copyContent(content)
    const message = { id: this.#store.nextId++, channel, content: copy, expiresAt, attempts, bytes }
    this.#store.later.set(key, { kind: 'again', message, at })
  }

  #countDelayed(channel: string, by: 1 | -1): void {
    const count = (this.#store.delayedCounts.get(channel) ?? 0) + by
    if (count > 0) this.#store.delayedCounts.set(channel, count)
    else this.#store.delayedCounts.delete(channel)
  }

  #remember(key: string, message: StoredMessage, now: number): void {
    const spent = { ...message, content: {}, bytes: 0 }
    this.#store.later.set(key, { kind: 'spent', message: spent, at: now + rememberMs })
  }
}

function isDelayed(kind: StoredLater['kind']): boolean {
  return kind === 'delayed' || kind === 'once'
}

function keyOf(channel: string, name: string): string {
  return `${channel} ${name}`
}
