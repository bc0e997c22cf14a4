import type { PendingReceive } from './pending-receive.ts'
import type { OnChange, SqlClient, SqlWatch } from './sql-client.ts'
import type { Statements } from './statements.ts'
import type { Transaction } from './transaction.ts'

export interface ClaimQueueOptions {
  readonly client: SqlClient & Required<Pick<SqlClient, 'claim'>>
  readonly statements: Statements
  readonly newTransaction: () => Transaction
  readonly onCommit: (transaction: Transaction) => void
  /** Told of signs and of looks by the clock. */
  readonly onSign: OnChange
}

/**
 * Claims for receives without lines on a database that lets them go on beside whoever writes. One
 * at a time, apart from the writes of the {@link TurnQueue}, so that neither waits for the other.
 */
export class ClaimQueue {
  readonly #options: ClaimQueueOptions
  readonly #receives = new Set<PendingReceive>()
  /** Receives to look for → their channels that have rows, or `undefined` when any may have. */
  readonly #due = new Map<PendingReceive, ReadonlySet<string> | undefined>()
  #running: Promise<void> | undefined
  #holds = 0
  #watch: SqlWatch | undefined

  constructor(options: ClaimQueueOptions) {
    this.#options = options
  }

  /** Looks for rows, in this turn and whenever some may have come, until `receive` ends. */
  add(receive: PendingReceive): void {
    this.#receives.add(receive)
    this.#due.set(receive, undefined)
    // From before the first look, so that nothing can come unnoticed after it.
    if (!this.#watch) {
      const { client, onSign } = this.#options
      this.#watch = client.watch((channels) => {
        onSign(channels)
        this.lookFor(channels)
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

  /** Looks for the receives on `channels`, which have rows; without, for all. */
  lookFor(channels?: ReadonlySet<string>): void {
    for (const receive of this.#receives) {
      if (!channels) {
        this.#due.set(receive, undefined)
        continue
      }
      const known = this.#due.get(receive)
      if (this.#due.has(receive) && !known) continue
      const found = receive.channels.filter((channel) => channels.has(channel))
      if (found.length > 0) this.#due.set(receive, new Set([...(known ?? []), ...found]))
    }
    this.#schedule()
  }

  /** Runs `run` while no claim is under way and what was claimed has reached its receivers. */
  async withoutClaims<T>(run: () => Promise<T>): Promise<T> {
    this.#holds++
    try {
      await this.drained()
      await nextTurn()
      return await run()
    } finally {
      this.#holds--
      this.#schedule()
    }
  }

  /** Resolves when no claim is under way. */
  async drained(): Promise<void> {
    await this.#running
  }

  #schedule(): void {
    if (this.#running || this.#holds > 0 || this.#due.size === 0) return
    this.#running = nextTurn()
      .then(() => this.#run())
      .finally(() => {
        this.#running = undefined
        this.#schedule()
      })
  }

  async #run(): Promise<void> {
    for (const [receive, channels] of this.#due) {
      if (this.#holds > 0) return
      this.#due.delete(receive)
      try {
        await this.#look(receive, channels)
      } catch (error) {
        if (this.#options.client.keepsClaims && receive.hasClaimed) receive.settle()
        else receive.fail(error)
      }
    }
  }

  async #look(receive: PendingReceive, hint: ReadonlySet<string> | undefined): Promise<void> {
    const { client, newTransaction, onCommit } = this.#options
    let channels = hint ? [...hint] : receive.channels
    // A claim that finds nothing costs as much as a look where each is one statement.
    if (!hint && (channels.length > 1 || !client.keepsClaims)) {
      channels = await this.#occupied(channels)
    }
    if (channels.length === 0 || receive.isEnded) return receive.settle()
    const transaction = await client.claim(function* () {
      receive.undoClaim()
      const begun = newTransaction()
      if (!receive.isEnded) yield* receive.claim(begun, channels)
      return begun
    })
    onCommit(transaction)
    if (receive.hasClaimed) this.#watch?.foundSome?.()
    receive.settle()
  }

  #occupied(channels: readonly string[]): Promise<readonly string[]> {
    const { client, statements } = this.#options
    return client.read(() => statements.dialect.occupied(statements.tables, channels))
  }
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve)
  })
}
