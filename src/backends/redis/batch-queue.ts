import { ChannelkitError } from '../../errors.ts'
import type { BatchMark } from '../channel-backend.ts'
import type { LaterMessage } from '../later.ts'

/** One entry to be stored. */
export interface NewEntry {
  /** Where a slot has several. */
  readonly channel?: string
  readonly body: string | Buffer
  /** Time of expiry, where it is not the standard one. */
  readonly expiresAt?: number | undefined
}

/** One message to be kept until its time. */
export interface NewLaterEntry extends NewEntry {
  readonly channel: string
  readonly later: LaterMessage
}

/** Why an entry was not stored; undefined when it was. */
export type Outcome = 'full' | 'line-full' | 'gone' | undefined

/** Says which batch it is, so that the server stores it once. */
export interface BatchId {
  readonly sender: string
  readonly number: number
  readonly part: number
}

/** Stores entries by one call; resolves with the script's account of what was not stored. */
export type StoreBatch<Entry> = (entries: readonly Entry[], id: BatchId) => Promise<string>

class Call<Entry> {
  readonly entries: readonly Entry[]
  readonly mark: BatchMark | undefined
  readonly outcomes: Outcome[] = []
  /** How many of its entries are in batches by now. */
  taken = 0
  /** Channels that had no room in an earlier part. */
  refused: Set<string | undefined> | undefined
  /** How many batches it was divided into by now. */
  parts = 0
  isFailed = false
  readonly resolve: (outcomes: readonly Outcome[]) => void
  readonly reject: (error: unknown) => void

  constructor(
    entries: readonly Entry[],
    mark: BatchMark | undefined,
    resolve: (outcomes: readonly Outcome[]) => void,
    reject: (error: unknown) => void,
  ) {
    this.entries = entries
    this.mark = mark
    this.resolve = resolve
    this.reject = reject
  }
}

// Bounds how long one call keeps the server from others: some half a millisecond.
const mostEntries = 500
const mostBytes = 262_144

const allStored: readonly Outcome[] = Object.freeze([])

/**
 * Joins what is to be stored in one slot within a turn of the event loop, or while a batch is under
 * way, into batches, one at a time and in the order of the calls.
 */
export class BatchQueue<Entry extends NewEntry> {
  readonly #sender: () => { readonly sender: string; readonly number: number }
  readonly #store: StoreBatch<Entry>
  #calls: Call<Entry>[] = []
  #isRunning = false
  readonly #onIdle: (() => void) | undefined
  readonly #idle: (() => void)[] = []

  /** @param sender - numbers a batch that has no mark, higher than all before. */
  constructor(
    sender: () => { readonly sender: string; readonly number: number },
    store: StoreBatch<Entry>,
    onIdle?: () => void,
  ) {
    this.#sender = sender
    this.#store = store
    this.#onIdle = onIdle
  }

  /** Resolves with the outcomes by place; empty when all is stored. */
  add(entries: readonly Entry[], mark?: BatchMark): Promise<readonly Outcome[]> {
    return new Promise((resolve, reject) => {
      this.#calls.push(new Call(entries, mark, resolve, reject))
      if (this.#isRunning) return
      this.#isRunning = true
      // What has a mark is joined already.
      if (mark) queueMicrotask(() => void this.#run())
      else setImmediate(() => void this.#run())
    })
  }

  /** Resolves when nothing is under way. */
  drained(): Promise<void> {
    if (!this.#isRunning) return Promise.resolve()
    return new Promise((resolve) => this.#idle.push(resolve))
  }

  async #run(): Promise<void> {
    while (this.#calls.length > 0) await this.#runOne()
    this.#isRunning = false
    this.#onIdle?.()
    for (const resolve of this.#idle.splice(0)) resolve()
  }

  async #runOne(): Promise<void> {
    const { entries, spans, id } = this.#next()
    if (entries.length === 0) return
    try {
      const account = await this.#store(entries, id)
      const outcomes = readAccount(account, entries.length)
      for (const { call, start, places } of spans) {
        for (let index = 0; index < places.length && outcomes; index++) {
          const outcome = outcomes[start + index]
          if (outcome) this.#refuse(call, places[index] as number, outcome)
        }
        this.#resolve(call)
      }
    } catch (error) {
      for (const { call } of spans) {
        call.isFailed = true
        call.reject(error)
      }
      this.#calls = this.#calls.filter(({ isFailed }) => !isFailed)
    }
  }

  #refuse(call: Call<Entry>, place: number, outcome: Outcome): void {
    call.outcomes[place] = outcome
    call.refused ??= new Set()
    call.refused.add(call.entries[place]?.channel)
  }

  #resolve(call: Call<Entry>): void {
    if (call.isFailed || call.taken < call.entries.length) return
    call.resolve(call.outcomes.length > 0 ? call.outcomes : allStored)
  }

  #next(): { entries: Entry[]; spans: Span<Entry>[]; id: BatchId } {
    const entries: Entry[] = []
    const spans: Span<Entry>[] = []
    let bytes = 0
    let id: BatchId | undefined
    while (this.#calls.length > 0) {
      const call = this.#calls[0] as Call<Entry>
      // A marked call has batches of its own, divided the same way whenever it is made again.
      if (call.mark && entries.length > 0) break
      const span: Span<Entry> = { call, start: entries.length, places: [] }
      for (; call.taken < call.entries.length; call.taken++) {
        const entry = call.entries[call.taken] as Entry
        if (call.refused?.has(entry.channel)) {
          // Nothing overtakes what an earlier part of the call had no room for.
          call.outcomes[call.taken] = 'full'
          continue
        }
        const isFull = entries.length >= mostEntries || bytes + entry.body.length > mostBytes
        if (isFull && entries.length > 0) break
        entries.push(entry)
        bytes += entry.body.length
        span.places.push(call.taken)
      }
      if (span.places.length > 0) spans.push(span)
      if (call.mark) {
        id = { sender: call.mark.sender, number: call.mark.number, part: call.parts++ }
      }
      if (call.taken < call.entries.length) break
      this.#calls.shift()
      if (span.places.length === 0) this.#resolve(call)
      if (call.mark) break
    }
    return { entries, spans, id: id ?? { ...this.#sender(), part: 0 } }
  }
}

/** The part of a batch that is one call's. */
interface Span<Entry> {
  readonly call: Call<Entry>
  /** First place in the batch. */
  readonly start: number
  /** Its entries' places in the call. */
  readonly places: number[]
}

const reasons: Readonly<Record<string, Outcome>> = { f: 'full', l: 'line-full' }

function readAccount(account: string, count: number): readonly Outcome[] | undefined {
  if (account === '') return undefined
  if (account === 'g') return Array<Outcome>(count).fill('gone')
  if (account === 'late') {
    throw new ChannelkitError(
      'ERR_BACKEND_UNAVAILABLE',
      'a batch came too late, after others of its sender; it was not stored',
    )
  }
  const outcomes: Outcome[] = []
  for (const item of account.split(',')) {
    outcomes[Number(item.slice(0, -1)) - 1] = reasons[item.slice(-1)]
  }
  return outcomes
}
