import { setTimeout as sleep } from 'node:timers/promises'
import { ChannelkitError } from '../../errors.ts'
import { withoutPassword } from '../../internal/without-password.ts'
import type { ServerClock } from '../server-clock.ts'
import {
  type OnChange,
  type SqlClient,
  type SqlPreparation,
  type SqlQuery,
  type SqlResult,
  type SqlWatch,
  type SqlWork,
  UnknownCommit,
  type WriteOptions,
  type WriteWork,
} from './sql-client.ts'

const firstDelayMs = 2
const longestDelayMs = 100
// How often the server's clock is read. Clocks of machines drift apart by some 50 ppm.
const clockMs = 30_000
// How long connections may take to say goodbye.
const closeMs = 1_000

export interface ServerClientOptions {
  /** How the server is called in errors, without a password. */
  readonly server: string
  readonly busyMs: number
  readonly preparation: SqlPreparation
  /** Set by the server's clock; none when the site has given a clock. */
  readonly clock: ServerClock | undefined
  readonly faults: ServerFaults
}

/** What a driver's errors mean. */
export interface ServerFaults {
  /** Whether the same transaction may go through in a moment. */
  isPassing(error: unknown): boolean
  /** Whether tables are not there that were before. */
  isTableMissing(error: unknown): boolean
  /** Whether the connection is gone, as against the server having refused a statement on it. */
  isConnectionLost(error: unknown): boolean
  /** Whether the server takes no writes, so that another connection may reach the one that does. */
  isReadOnly(error: unknown): boolean
  /** Whether not even a connection could be made, so that another try now is of no use. */
  isUnreachable(error: unknown): boolean
  ours(error: unknown, server: string, busyMs: number): ChannelkitError
}

/** That the connection broke while a transaction was committed. */
export class BrokenCommit<T> extends Error {
  /** What the server knows the transaction by. */
  readonly transactionId: string
  readonly result: T

  constructor(transactionId: string, result: T, cause: unknown) {
    super('the connection broke during a commit', { cause })
    this.transactionId = transactionId
    this.result = result
  }
}

/** What the clients of database servers have in common: when to try again, and for how long. */
export abstract class ServerClient<Connection> implements SqlClient {
  readonly busyMs: number
  readonly #options: ServerClientOptions
  #isPrepared = false
  #preparing: Promise<void> | undefined
  #clockReadAt = Number.NEGATIVE_INFINITY
  #isClosed = false
  readonly #closing = new AbortController()

  constructor(options: ServerClientOptions) {
    this.#options = options
    this.busyMs = options.busyMs
  }

  abstract watch(onChange: OnChange): SqlWatch
  abstract claim<T>(work: () => SqlWork<T>): Promise<T>

  /** Takes a connection out of the pool. */
  protected abstract take(): Promise<Connection>
  /** Puts it back, or destroys it. */
  protected abstract release(connection: Connection, isBroken: boolean): void
  protected abstract runStatement(connection: Connection, query: SqlQuery): Promise<SqlResult>
  /** @throws {BrokenCommit} when it is not known whether it was committed. */
  protected abstract inTransaction<T>(
    connection: Connection,
    work: WriteWork<T>,
    stored?: WriteOptions<T>['stored'],
  ): Promise<T>
  /** Runs `make` while no other process does. */
  protected abstract makeTables(connection: Connection, make: () => SqlWork<void>): Promise<void>
  /** Milliseconds since the epoch. */
  protected abstract readClock(connection: Connection): Promise<number>
  /** Whether a transaction was committed; `undefined` while it is open. */
  protected abstract wasCommitted(
    connection: Connection,
    transactionId: string,
  ): Promise<boolean | undefined>
  /** Stops watches and says goodbye to the server. */
  protected abstract end(): Promise<unknown>

  read<T>(work: () => SqlWork<T>): Promise<T> {
    return this.run((connection) => this.drive(connection, work()))
  }

  write<T>(work: WriteWork<T>, { since, stored }: WriteOptions<T> = {}): Promise<T> {
    return this.run((connection) => this.inTransaction(connection, work, stored), since)
  }

  async close(): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#closing.abort()
    const late = new AbortController()
    await Promise.race([
      this.end().catch(() => undefined),
      sleep(closeMs, undefined, { signal: late.signal }).catch(() => undefined),
    ])
    late.abort()
  }

  /** Tries again what can pass, within `busyMs`, and once what met a connection that was gone. */
  protected async run<T>(
    attempt: (connection: Connection) => Promise<T>,
    since?: number,
  ): Promise<T> {
    const { faults, server, busyMs } = this.#options
    let startedAt = 0
    let delayMs = firstDelayMs
    let isSecondTry = false
    while (true) {
      if (this.#isClosed) throw closedError()
      try {
        return await this.#attempt(attempt)
      } catch (error) {
        if (error instanceof BrokenCommit) {
          if (await this.#wasStored(error)) return error.result
          continue
        }
        const now = performance.now()
        startedAt ||= now
        const leftMs = (since ?? startedAt) + busyMs - now
        const isElsewhere = faults.isConnectionLost(error) || faults.isReadOnly(error)
        if (isElsewhere || faults.isTableMissing(error)) {
          this.#isPrepared = false
          if (isSecondTry || faults.isUnreachable(error)) throw faults.ours(error, server, busyMs)
          isSecondTry = true
        } else if (faults.isPassing(error) && leftMs > 0) {
          await this.#pause(Math.min(delayMs * (0.5 + Math.random()), leftMs))
          delayMs = Math.min(delayMs * 2, longestDelayMs)
        } else {
          throw faults.ours(error, server, busyMs)
        }
      }
    }
  }

  /** Runs one statement after the other. */
  protected async drive<T>(connection: Connection, work: SqlWork<T>): Promise<T> {
    let step = work.next()
    while (!step.done) step = work.next(await this.runStatement(connection, step.value))
    return step.value
  }

  async #attempt<T>(attempt: (connection: Connection) => Promise<T>): Promise<T> {
    const connection = await this.take()
    let isBroken = false
    try {
      await this.#prepare(connection)
      return await attempt(connection)
    } catch (error) {
      const { faults } = this.#options
      isBroken = error instanceof BrokenCommit || faults.isConnectionLost(error)
      // After a fail-over connections stay with the server that is no longer the primary.
      isBroken ||= faults.isReadOnly(error)
      throw error
    } finally {
      this.release(connection, isBroken)
    }
  }

  async #prepare(connection: Connection): Promise<void> {
    if (!this.#isPrepared) {
      this.#preparing ??= this.#makeReady(connection).finally(() => {
        this.#preparing = undefined
      })
      await this.#preparing
    }
    if (performance.now() - this.#clockReadAt > clockMs) await this.#setClock(connection)
  }

  async #makeReady(connection: Connection): Promise<void> {
    const { preparation } = this.#options
    await this.#setClock(connection)
    if (!(await this.drive(connection, preparation.isMade()))) {
      await this.makeTables(connection, () => preparation.make())
    }
    this.#isPrepared = true
  }

  async #setClock(connection: Connection): Promise<void> {
    const { clock } = this.#options
    const askedAt = performance.now()
    this.#clockReadAt = askedAt
    clock?.set(await this.readClock(connection), askedAt)
  }

  /**
   * Asks the server what became of a transaction whose commit was not answered.
   *
   * @throws {UnknownCommit} when that is not to be learnt in time.
   */
  async #wasStored(broken: BrokenCommit<unknown>): Promise<boolean> {
    const { faults, server, busyMs } = this.#options
    const deadline = performance.now() + busyMs
    while (!this.#isClosed && performance.now() < deadline) {
      try {
        const { transactionId } = broken
        const outcome = await this.#attempt((each) => this.wasCommitted(each, transactionId))
        if (outcome !== undefined) return outcome
      } catch (error) {
        if (!faults.isConnectionLost(error) && !faults.isPassing(error)) break
      }
      await this.#pause(longestDelayMs)
    }
    throw new UnknownCommit(server, broken.cause, () => this.#wasStored(broken))
  }

  async #pause(delayMs: number): Promise<void> {
    await sleep(delayMs, undefined, { signal: this.#closing.signal }).catch(() => undefined)
  }
}

/** Where a server is, without its password. */
export function describeServer(kind: string, config: object): string {
  const { connectionString, uri, host, port } = config as {
    readonly connectionString?: string
    readonly uri?: string
    readonly host?: string
    readonly port?: number
  }
  const url = connectionString ?? uri
  if (url) return `${kind} at ${withoutPassword(url)}`
  return host === undefined ? kind : `${kind} at ${host}${port === undefined ? '' : `:${port}`}`
}

/** What is said of an error that has no explanation of its own. */
export function unexplained(error: unknown, isConnectionLost: boolean): string {
  const reason = reasonOf(error)
  if (!isConnectionLost) return `has failed: ${reason}; see the cause`
  return `cannot be reached: ${reason}; start it, or correct its address`
}

/** Of several addresses of one name, what was wrong with the first. */
function reasonOf(error: unknown): string {
  const first = error instanceof AggregateError ? error.errors[0] : error
  const { message, code } = (first ?? {}) as { readonly [key: string]: unknown }
  return String(message || code || first).replaceAll(';', ',')
}

/** Whether a system call or a driver says that there is nobody to talk to. */
export function isUnreachable(error: unknown): boolean {
  const { code, message } = error as { readonly code?: unknown; readonly message?: unknown }
  if (code === 'ECONNREFUSED' || code === 'ENOENT' || code === 'ENOTFOUND') return true
  if (code === 'ETIMEDOUT' || code === '57P03') return true
  return typeof message === 'string' && message.includes('timeout')
}

export function ignore(): void {}

function closedError(): ChannelkitError {
  return new ChannelkitError('ERR_BACKEND_CLOSED', 'the channel backend is closed; open a new one')
}
