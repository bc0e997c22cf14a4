import { isChannelkitError } from '../../errors.ts'
import type { PendingReceive } from './pending-receive.ts'
import type { OnChange, SqlClient, SqlWatch, SqlWork } from './sql-client.ts'
import type { Statements } from './statements.ts'
import type { Transaction } from './transaction.ts'

// Bounds how long one transaction holds the lock and blocks the process, at some 5 µs a unit.
const mostUnitsPerTransaction = 2_000

/** One call that writes. */
interface Write {
  /** Messages or memberships in it. */
  readonly units: number
  /** By `performance.now()`. */
  readonly calledAt: number
  readonly run: (transaction: Transaction) => SqlWork<unknown>
  result: unknown
  readonly resolve: (result: never) => void
  readonly reject: (error: unknown) => void
}

export interface TurnQueueOptions {
  readonly client: SqlClient
  readonly statements: Statements
  readonly newTransaction: () => Transaction
  readonly onCommit: (transaction: Transaction) => void
  /** Puts what lies in the outbox where it goes; returns whether that was all. */
  readonly moveOutbox: (transaction: Transaction) => SqlWork<boolean>
  readonly hasOutbox: () => SqlWork<boolean>
  /** Told of signs and of looks by the clock. */
  readonly onSign: OnChange
}

/**
 * Joins what is called in one turn of the event loop into one transaction: the writes in the order
 * of their calls, then the claims of receives. One transaction at a time; what is called while one
 * waits for the lock goes into the next.
 */
export class TurnQueue {
  readonly #options: TurnQueueOptions
  #writes: Write[] = []
  readonly #receives = new Set<PendingReceive>()
  /** Receives to look for in the next turn. */
  #due = new Set<PendingReceive>()
  #isRunning = false
  #watch: SqlWatch | undefined
  #idle: (() => void)[] = []

  constructor(options: TurnQueueOptions) {
    this.#options = options
  }

  /** Runs `run` within this turn's transaction; settles when that is committed. */
  write<T>(units: number, run: (transaction: Transaction) => SqlWork<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const calledAt = performance.now()
      this.#writes.push({ units, calledAt, run, result: undefined, resolve, reject })
      this.#schedule()
    })
  }

  /** Looks for rows, in this turn and whenever some may have come, until `receive` ends. */
  add(receive: PendingReceive): void {
    this.#receives.add(receive)
    this.#due.add(receive)
    // From before the first look, so that nothing can come unnoticed after it.
    if (!this.#watch) {
      const { client, onSign } = this.#options
      this.#watch = client.watch((channels) => {
        onSign(channels)
        this.#lookFor(channels)
      })
      onSign()
    }
    this.#watch.resume()
    this.#schedule()
  }

  /** To be called when `receive` has ended. */
  remove(receive: PendingReceive): void {
    this.#receives.delete(receive)
    this.#due.delete(receive)
    if (this.#receives.size === 0) this.#watch?.pause()
  }

  /** The receives that have not ended. */
  get receives(): Iterable<PendingReceive> {
    return [...this.#receives]
  }

  /** Resolves when nothing is under way or to be written. */
  drained(): Promise<void> {
    if (!this.#isRunning) return Promise.resolve()
    return new Promise((resolve) => {
      this.#idle.push(resolve)
    })
  }

  #schedule(): void {
    if (this.#isRunning) return
    this.#isRunning = true
    setImmediate(() => void this.#run())
  }

  async #run(): Promise<void> {
    while (this.#writes.length > 0 || this.#due.size > 0) {
      const writes = this.#takeWrites()
      const due = this.#due
      this.#due = new Set()
      await this.#runOne(writes, due)
      if (this.#writes.length > 0 || this.#due.size > 0) await nextTurn()
    }
    this.#isRunning = false
    for (const resolve of this.#idle.splice(0)) resolve()
  }

  #takeWrites(): readonly Write[] {
    let units = 0
    let count = 0
    while (count < this.#writes.length && (count === 0 || units < mostUnitsPerTransaction)) {
      units += (this.#writes[count] as Write).units
      count++
    }
    return this.#writes.splice(0, count)
  }

  async #runOne(writes: readonly Write[], due: ReadonlySet<PendingReceive>): Promise<void> {
    const { client } = this.#options
    const claiming = new Set<PendingReceive>()
    try {
      let occupied: ReadonlySet<string> | undefined
      if (writes.length === 0) {
        // A read alone while nothing is there: a write transaction would keep others waiting.
        occupied = await client.read(() => this.#occupied(due))
        if (occupied.size === 0) {
          for (const receive of due) receive.settle()
          return
        }
      }
      let isMoved = true
      const work = function* (this: TurnQueue, hasOutbox?: boolean): SqlWork<Transaction> {
        const transaction = this.#options.newTransaction()
        isMoved = yield* this.#moveOutbox(transaction, hasOutbox)
        if (isMoved) yield* this.#work(transaction, writes, due, occupied, claiming)
        return transaction
      }
      const transaction = await client.write((hasOutbox) => work.call(this, hasOutbox), {
        since: writes[0]?.calledAt,
        stored: ({ writtenChannels }) => writtenChannels,
      })
      this.#options.onCommit(transaction)
      if (!isMoved) {
        // What was sent before goes first, in as many transactions as it takes.
        client.expectOutbox?.()
        this.#writes.unshift(...writes)
        for (const receive of new Set([...due, ...claiming])) {
          receive.undoClaim()
          this.#due.add(receive)
        }
        return
      }
      for (const write of writes) write.resolve(write.result as never)
      for (const receive of due) if (!claiming.has(receive)) receive.settle()
      for (const receive of claiming) {
        if (receive.hasClaimed) this.#watch?.foundSome?.()
        receive.settle()
      }
    } catch (error) {
      this.#reject(writes, error)
      for (const receive of new Set([...due, ...claiming])) receive.fail(error)
    }
  }

  /**
   * Rejects what was to be written. When the database stayed busy, that is all that has waited its
   * time, also of what is queued; those that were called later still have theirs.
   */
  #reject(writes: readonly Write[], error: unknown): void {
    const lapsedBefore = performance.now() - this.#options.client.busyMs
    const isLapsed = ({ calledAt }: Write): boolean => calledAt <= lapsedBefore
    const stayedBusy = isChannelkitError(error, 'ERR_BACKEND_UNAVAILABLE') && writes.some(isLapsed)
    if (!stayedBusy) {
      for (const write of writes) write.reject(error)
      return
    }
    const all = [...writes, ...this.#writes]
    this.#writes = all.filter((write) => !isLapsed(write))
    for (const write of all) if (isLapsed(write)) write.reject(error)
  }

  *#moveOutbox(transaction: Transaction, hasOutbox: boolean | undefined): SqlWork<boolean> {
    const { hasOutbox: look, moveOutbox } = this.#options
    if (!(hasOutbox ?? (yield* look()))) return true
    return yield* moveOutbox(transaction)
  }

  *#work(
    transaction: Transaction,
    writes: readonly Write[],
    due: ReadonlySet<PendingReceive>,
    known: ReadonlySet<string> | undefined,
    claiming: Set<PendingReceive>,
  ): SqlWork<void> {
    for (const receive of claiming) receive.undoClaim()
    claiming.clear()
    for (const write of writes) write.result = yield* write.run(transaction)
    yield* transaction.finish()
    let occupied = known
    if (!occupied && due.size > 0) occupied = yield* this.#occupied(due)
    for (const receive of this.#receives) {
      // One that is to be looked for in the next transaction waits for that.
      if (receive.isEnded || (this.#due.has(receive) && !due.has(receive))) continue
      const channels = receive.channels.filter(
        (channel) =>
          transaction.writtenChannels.has(channel) || (due.has(receive) && occupied?.has(channel)),
      )
      if (channels.length === 0) continue
      claiming.add(receive)
      yield* receive.claim(transaction, channels)
    }
  }

  *#occupied(due: Iterable<PendingReceive>): SqlWork<ReadonlySet<string>> {
    const channels = new Set<string>()
    for (const receive of due) for (const channel of receive.channels) channels.add(channel)
    if (channels.size === 0) return channels
    const { dialect, tables } = this.#options.statements
    return new Set(yield* dialect.occupied(tables, [...channels]))
  }

  #lookFor(channels: ReadonlySet<string> | undefined): void {
    for (const receive of this.#receives) {
      if (!channels || receive.channels.some((channel) => channels.has(channel))) {
        this.#due.add(receive)
      }
    }
    if (this.#due.size > 0) this.#schedule()
  }
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve)
  })
}
