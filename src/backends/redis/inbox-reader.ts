import { type Clock, systemClock } from '../../internal/clock.ts'
import type { ReceiveOptions } from '../channel-backend.ts'
import { isMessage, type RawInboxEntry, readInboxEntry, unpack } from './packed.ts'
import { Wait } from './wait.ts'

/** What a look into an inbox found. */
export interface Taken {
  readonly isOpen: boolean
  /** The number of the last entries that the inbox was handed. */
  readonly handed: number
  readonly entries: readonly Buffer[]
  /** Number of the answer. */
  readonly answer: string
  /** The first so many entries were handed over under this number, to nobody who was counted. */
  readonly published: { readonly count: number; readonly number: number }
}

export interface InboxReaderOptions {
  readonly clock: Clock
  /**
   * How many times in a row what is sent may be handed over until the reader looks, 1 or more. More than one where
   * all that is published comes by one connection.
   */
  readonly window: number
  /**
   * Takes up to `max` entries, or tells the inbox that its reader waits for so many hand-overs.
   *
   * @param last - number of the last answer: what an answer held that was lost is given again, as
   *   far as it changed memberships.
   */
  readonly take: (max: number, window: number, last: string) => Promise<Taken>
  /** Opens the inbox again, which the server has lost. */
  readonly reopen: () => Promise<void>
}

// Entries that were published come with the reply to the call that tells of them, or were lost.
const longestOnTheWayMs = 1_000
// A wait looks so often by itself, should a wake-up be lost.
const lookAgainMs = 5_000

/**
 * Reads one inbox. While its reader waits, what is sent is published to it at once; otherwise it lies
 * in the inbox until taken. What is handed over when nobody waits any more is kept for the next
 * receive.
 */
export class InboxReader {
  readonly #options: InboxReaderOptions
  #arrived: RawInboxEntry[] = []
  #handed = 0
  #answer = '0'
  /**
   * How many hand-overs are to come at least before the next look: what the inbox was told less those that came
   * since it was asked. To think of too few only makes it look early; to think of too many would leave it waiting.
   */
  #left = 0
  #wait: Wait | undefined
  #onArrival: (() => void) | undefined

  constructor(options: InboxReaderOptions) {
    this.#options = options
  }

  /** Entries that were handed over and not received yet. */
  get arrived(): readonly RawInboxEntry[] {
    return this.#arrived
  }

  /** Forgets the messages that have arrived; changes of membership stay. */
  dropMessages(): void {
    this.#arrived = this.#arrived.filter(({ kind }) => !isMessage(kind))
  }

  /** To be called with what is published for the inbox. */
  readonly hear = (message: Buffer): void => {
    const space = message.indexOf(0x20)
    const number = Number(message.toString('latin1', 0, space))
    const hasEntries = space + 1 < message.length
    // While a slot moves, both its masters may tell the same.
    if (hasEntries && number <= this.#handed) return
    // Without entries it wakes, or tells what was lost together with a connection.
    this.#handed = Math.max(this.#handed, number)
    // Without entries none is to come, also when the answer is on its way that says how many are.
    this.#left = hasEntries ? this.#left - 1 : Number.NEGATIVE_INFINITY
    for (const { entry } of unpack(message, space + 1)) readInboxEntry(entry, this.#arrived)
    this.#onArrival?.()
    this.#wait?.wake()
  }

  /** Something may lie in the inbox: its reader is not registered as waiting any more. */
  look(): void {
    this.#left = 0
    this.#wait?.wake()
  }

  fail(error: unknown): void {
    this.#left = 0
    this.#wait?.fail(error)
  }

  /** Takes what has come, as entries taken apart; `live` keeps those that have not expired. */
  async receive<Entry>(
    { max, waitMs, signal }: ReceiveOptions,
    live: (entries: readonly RawInboxEntry[]) => readonly Entry[],
  ): Promise<readonly Entry[]> {
    signal?.throwIfAborted()
    const { clock } = this.#options
    const wait = new Wait(clock, waitMs, signal)
    this.#wait = wait
    try {
      for (;;) {
        if (this.#arrived.length === 0) {
          wait.reset()
          const waits = waitMs > 0 && !wait.isOver
          if (!waits || this.#left <= this.#options.window / 2) await this.#look(max, waits)
        }
        const found = live(this.#arrived.splice(0, max))
        if (found.length > 0) return found
        if (this.#arrived.length > 0) continue
        wait.throwIfOver()
        if (waitMs === 0 || wait.isOver) return found
        const cancel = clock.schedule(() => this.look(), lookAgainMs)
        try {
          if ((await wait.next()) === 'late') return found
        } finally {
          cancel()
        }
      }
    } finally {
      wait.end()
      this.#wait = undefined
    }
  }

  async #look(max: number, waits: boolean): Promise<void> {
    const { take, reopen, window } = this.#options
    this.#left = 0
    const asked = waits ? window : 0
    let taken = await take(max, asked, this.#answer)
    if (!taken.isOpen) {
      await reopen()
      taken = await take(max, asked, this.#answer)
    }
    this.#answer = taken.answer
    if (taken.handed > this.#handed) await this.#arrival(taken.handed)
    const { count, number } = taken.published
    // In a cluster, others than the server of the inbox may have told of them.
    const isKnown = count > 0 && number <= this.#handed
    if (count > 0) this.#handed = Math.max(this.#handed, number)
    for (const entry of isKnown ? taken.entries.slice(count) : taken.entries) {
      readInboxEntry(entry, this.#arrived)
    }
    if (taken.entries.length === 0) this.#left += asked
  }

  /** Waits for what was published before the entries that were just taken. */
  async #arrival(handed: number): Promise<void> {
    let isLate = false
    const cancel = systemClock.schedule(() => {
      isLate = true
      this.#onArrival?.()
    }, longestOnTheWayMs)
    while (this.#handed < handed && !isLate) {
      await new Promise<void>((resolve) => {
        this.#onArrival = resolve
      })
    }
    this.#onArrival = undefined
    cancel()
    this.#handed = Math.max(this.#handed, handed)
  }
}
