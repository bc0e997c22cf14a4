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
  readonly parked: Queue<IncomingMessage>
}

/** One who waits for something to arrive on any of `names`; woken once, by the first arrival. */
export interface Waiter {
  readonly names: readonly string[]
  wake(): void
}

/** An inbox entry with its expiry: Infinity for a change of membership, which is never dropped. */
export interface StoredEntry {
  readonly entry: InboxEntry
  readonly expiresAt: number
}

/**
 * A first-in-first-out list whose head is taken without moving the rest. Items before `#head` are
 * taken already and cut off once they are half of the list.
 */
export class Queue<Item> {
  #items: Item[] = []
  #head = 0

  get size(): number {
    return this.#items.length - this.#head
  }

  /** From the head on. */
  *[Symbol.iterator](): Generator<Item> {
    for (let index = this.#head; index < this.#items.length; index++) {
      yield this.#items[index] as Item
    }
  }

  push(item: Item): void {
    this.#items.push(item)
  }

  peek(): Item | undefined {
    return this.#items[this.#head]
  }

  shift(): Item | undefined {
    const item = this.#items[this.#head]
    if (item === undefined) return undefined
    this.#items[this.#head] = undefined as Item
    this.#head++
    if (this.#head === this.#items.length) {
      this.#items = []
      this.#head = 0
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
    return before - this.size
  }

  /** Puts `item` behind the last one that is `before` it, counted from the head. */
  insert(item: Item, isBefore: (other: Item) => boolean): void {
    let index = this.#head
    while (index < this.#items.length && isBefore(this.#items[index] as Item)) index++
    this.#items.splice(index, 0, item)
  }

  /** Puts `item` where it belongs in a list that is in order, which is near the tail. */
  insertFromTail(item: Item, isBefore: (a: Item, b: Item) => boolean): void {
    let index = this.#items.length
    while (index > this.#head && isBefore(item, this.#items[index - 1] as Item)) index--
    this.#items.splice(index, 0, item)
  }
}

/**
 * The data that memory backends share. Two backends on one store behave like two processes on one
 * broker, which is what tests need; a site has one of each.
 */
export class MemoryStore {
  readonly channels = new Map<string, Queue<IncomingMessage>>()
  readonly inboxes = new Map<string, Queue<StoredEntry>>()
  /** Group name → channel → time of expiry. */
  readonly groups = new Map<string, Map<string, number>>()
  /** Reply channel → its line, while a turn of it is held or a message of it ready. */
  readonly lines = new Map<string, StoredLine>()
  /** Channel → how many messages for it are parked in lines. */
  readonly parkedCounts = new Map<string, number>()
  readonly processes = new Map<string, { readonly info: ProcessInfo; readonly expiresAt: number }>()
  /** Name of a channel or inbox → who waits for it. */
  readonly waiters = new Map<string, Set<Waiter>>()
  nextId = 1
}
