import type { IncomingMessage, ProcessInfo } from '../channel-backend.ts'
import type { InboxEntry } from '../reply-inbox.ts'

/** The line of one reply channel: somebody has its turn, or its head is ready for whoever comes. */
export interface StoredLine {
  /** Of the turn that is held; undefined while `ready` says what waits. */
  token: string | undefined
  /** When the turn lapses, or the ready message expires. */
  expiresAt: number
  /** The message that is next, which lies in its channel's queue. */
  ready: { readonly id: number | string; readonly channel: string } | undefined
  /** What must wait, in the order of its ids. */
  readonly parked: Queue<StoredMessage>
}

/** One who waits for something to arrive on any of `names`; woken once, by the first arrival. */
export interface Waiter {
  readonly names: readonly string[]
  wake(): void
}

/** What a {@link Queue} asks of its items. */
export interface Stored {
  readonly expiresAt: number
  /** About how much memory it takes; 0 for a change of membership, which takes no place. */
  readonly bytes: number
}

/** A message on a work channel, or parked for it. */
export interface StoredMessage extends IncomingMessage, Stored {}

/** A message that is not to be seen before a time. */
export interface StoredLater {
  /**
   * `delayed` or `once` when it was sent so, `spent` when that one was delivered and its name is
   * remembered; `held` by who has taken it, `again` when it is to be tried again.
   */
  readonly kind: 'delayed' | 'once' | 'spent' | 'held' | 'again'
  readonly message: StoredMessage
  /** In milliseconds since the epoch. */
  at: number
}

/** An inbox entry with its expiry: Infinity for a change of membership, which is never dropped. */
export interface StoredEntry extends Stored {
  readonly entry: InboxEntry
}

/**
 * A first-in-first-out list whose head is taken without moving the rest. Items before `#head` are
 * taken already and cut off once they are half of the list.
 */
export class Queue<Item extends Stored> {
  #items: Item[] = []
  #head = 0
  #places = 0
  #bytes = 0
  /** Nothing in it expires before. */
  #earliestExpiry = Number.POSITIVE_INFINITY

  get size(): number {
    return this.#items.length - this.#head
  }

  /** How many items take a place. */
  get places(): number {
    return this.#places
  }

  /** About how much memory its items take. */
  get bytes(): number {
    return this.#bytes
  }

  /** From the head on. */
  *[Symbol.iterator](): Generator<Item> {
    for (let index = this.#head; index < this.#items.length; index++) {
      yield this.#items[index] as Item
    }
  }

  push(item: Item): void {
    this.#items.push(item)
    this.#count(item)
  }

  peek(): Item | undefined {
    return this.#items[this.#head]
  }

  shift(): Item | undefined {
    const item = this.#items[this.#head]
    if (item === undefined) return undefined
    this.#items[this.#head] = undefined as never
    this.#head++
    this.#bytes -= item.bytes
    if (item.bytes > 0) this.#places--
    if (this.#head === this.#items.length) {
      this.#items = []
      this.#head = 0
      this.#earliestExpiry = Number.POSITIVE_INFINITY
    } else if (this.#head >= 1_024 && this.#head * 2 >= this.#items.length) {
      this.#items = this.#items.slice(this.#head)
      this.#head = 0
    }
    return item
  }

  /** Keeps the items `keep` says yes to and returns how many went. */
  filter(keep: (item: Item) => boolean): number {
    const before = this.size
    this.#items = this.#items.slice(this.#head).filter(keep)
    this.#head = 0
    this.#places = 0
    this.#bytes = 0
    this.#earliestExpiry = Number.POSITIVE_INFINITY
    for (const item of this.#items) this.#count(item)
    return before - this.size
  }

  /**
   * Removes some that have expired by `now`, if there are any, and returns how many went: those at
   * the head, else all. So asking again and again of a full queue costs nothing.
   */
  dropExpired(now: number): number {
    if (now < this.#earliestExpiry) return 0
    let count = 0
    for (let head = this.peek(); head && head.expiresAt <= now; head = this.peek()) {
      this.shift()
      count++
    }
    return count > 0 ? count : this.filter(({ expiresAt }) => expiresAt > now)
  }

  /** Puts `item` behind the last one that is `before` it, counted from the head. */
  insert(item: Item, isBefore: (other: Item) => boolean): void {
    let index = this.#head
    while (index < this.#items.length && isBefore(this.#items[index] as Item)) index++
    this.#items.splice(index, 0, item)
    this.#count(item)
  }

  /** Puts `item` where it belongs in a list that is in order, which is near the tail. */
  insertFromTail(item: Item, isBefore: (a: Item, b: Item) => boolean): void {
    let index = this.#items.length
    while (index > this.#head && isBefore(item, this.#items[index - 1] as Item)) index--
    this.#items.splice(index, 0, item)
    this.#count(item)
  }

  #count({ bytes, expiresAt }: Item): void {
    this.#bytes += bytes
    if (bytes > 0) this.#places++
    if (expiresAt < this.#earliestExpiry) this.#earliestExpiry = expiresAt
  }
}

/**
 * The data that memory backends share. Two backends on one store behave like two processes on one
 * broker, which is what tests need; a site has one of each.
 */
export class MemoryStore {
  readonly channels = new Map<string, Queue<StoredMessage>>()
  readonly inboxes = new Map<string, Queue<StoredEntry>>()
  /** Group name → channel → time of expiry. */
  readonly groups = new Map<string, Map<string, number>>()
  /** Reply channel → its line, while a turn of it is held or a message of it ready. */
  readonly lines = new Map<string, StoredLine>()
  /** Channel → how many messages for it are parked in lines, and about how much memory they take. */
  readonly parkedCounts = new Map<string, { readonly count: number; readonly bytes: number }>()
  /** Channel, space and name → what waits for its time. */
  readonly later = new Map<string, StoredLater>()
  /** Channel → how many of those were sent for later. */
  readonly delayedCounts = new Map<string, number>()
  readonly processes = new Map<string, { readonly info: ProcessInfo; readonly expiresAt: number }>()
  /**
   * Name of a channel or inbox → who waits for it, who came first in front. Lists that are empty
   * stay until the next clean-up: a map that changes with every wait would keep the dead alive, see
   * `internal/roster.ts`.
   */
  readonly waiters = new Map<string, Waiter[]>()
  nextId = 1
}
