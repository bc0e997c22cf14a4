import { createHash, randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { ChannelkitError } from '../../errors.ts'
import type { ServerClock } from '../server-clock.ts'
import { Poll } from './poll.ts'
import {
  loadPostgresDriver,
  type PostgresConnection,
  type PostgresPool,
  type PostgresResult,
  runStatement,
} from './postgres-driver.ts'
import { isConnectionLost, isPassing, isTableMissing, postgresFault } from './postgres-fault.ts'
import { PostgresListener } from './postgres-listener.ts'
import type {
  OnChange,
  SqlClient,
  SqlPreparation,
  SqlResult,
  SqlWatch,
  SqlWork,
  WriteOptions,
} from './sql-client.ts'

// A process that stands still within a transaction holds up its whole site: the server ends it.
const idleInTransactionMs = 3_000
const firstDelayMs = 2
const longestDelayMs = 100
// How often the server's clock is read. Clocks of machines drift apart by some 50 ppm.
const clockMs = 30_000
// How long connections may take to say goodbye.
const closeMs = 1_000
// A notification takes less than 8,000 bytes.
const mostPayloadBytes = 7_900

export interface PostgresClientOptions {
  readonly schema: string
  readonly tablePrefix: string
  /** A pool of the site's, or how to make one. */
  readonly pool: PostgresPool | object
  /** How the listener connects; undefined for by the pool, false for not at all. */
  readonly listen: object | false | undefined
  readonly poolSize: number
  readonly busyMs: number
  /** Whether a pooler gives each transaction another connection of the server's. */
  readonly isPooled: boolean
  readonly preparation: SqlPreparation
  /** Set by the server's clock; none when the site has given a clock. */
  readonly clock: ServerClock | undefined
}

/** That the connection broke while a transaction was committed. */
class BrokenCommit<T> extends Error {
  readonly transactionId: string
  readonly result: T

  constructor(transactionId: string, result: T, cause: unknown) {
    super('the connection broke during a commit', { cause })
    this.transactionId = transactionId
    this.result = result
  }
}

/**
 * A small pool of connections to a PostgreSQL, and one that listens.
 *
 * Writers of one site take turns by an advisory lock, which lasts until their transaction ends. So
 * ids are given in the order in which they are committed, and room is counted exactly. Claims need
 * no turn: each locks the rows it takes, and passes over those that others have locked.
 */
export class PostgresClient implements SqlClient {
  readonly busyMs: number
  readonly keepsClaims = true
  readonly #options: PostgresClientOptions
  readonly #isOwnPool: boolean
  readonly #server: string
  readonly #beginText: string
  /** Name of the notifications of this site. */
  readonly #signName: string
  readonly #signFrom = randomUUID()
  readonly #polls = new Set<Poll>()
  #pool: PostgresPool | undefined
  #listener: PostgresListener | undefined
  #isPrepared = false
  #preparing: Promise<void> | undefined
  #clockReadAt = Number.NEGATIVE_INFINITY
  #isClosed = false
  readonly #closing = new AbortController()

  constructor(options: PostgresClientOptions) {
    const { schema, tablePrefix, pool, busyMs } = options
    this.#options = options
    this.busyMs = busyMs
    this.#isOwnPool = !isPool(pool)
    this.#server = describeServer(pool)
    const hash = createHash('sha256').update(`${schema}.${tablePrefix}`).digest()
    this.#signName = `channelkit_${hash.toString('hex', 0, 12)}`
    const lock = hash.readBigInt64BE(0)
    const settings = this.#keepsPrepared
      ? ''
      : `SET LOCAL lock_timeout = ${busyMs}; SET LOCAL idle_in_transaction_session_timeout = ${idleInTransactionMs}; `
    this.#beginText = `BEGIN; ${settings}SELECT pg_advisory_xact_lock(${lock}), pg_current_xact_id()::text AS id`
  }

  read<T>(work: () => SqlWork<T>): Promise<T> {
    return this.#run((connection) => this.#drive(connection, work()))
  }

  claim<T>(work: () => SqlWork<T>): Promise<T> {
    return this.#run((connection) => this.#drive(connection, work()))
  }

  async write<T>(work: () => SqlWork<T>, { since, stored }: WriteOptions<T> = {}): Promise<T> {
    return this.#run(
      (connection) => this.#inTransaction(connection, work, (result) => stored?.(result)),
      since,
    )
  }

  watch(onChange: OnChange): SqlWatch {
    const poll = new Poll(onChange)
    this.#polls.add(poll)
    this.#listen()
    poll.rest(this.#listener?.isListening ?? false)
    const resume = poll.resume.bind(poll)
    return {
      resume: () => {
        resume()
        this.#holdOpen()
      },
      pause: () => {
        poll.pause()
        this.#holdOpen()
      },
      foundSome: () => poll.foundSome(),
    }
  }

  async close(): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#closing.abort()
    for (const poll of this.#polls) poll.stop()
    const ending = [this.#listener?.close(), this.#isOwnPool ? this.#pool?.end() : undefined]
    const late = new AbortController()
    await Promise.race([
      Promise.allSettled(ending),
      sleep(closeMs, undefined, { signal: late.signal }).catch(() => undefined),
    ])
    late.abort()
  }

  /** Statements that were prepared stay with a connection only where that is ours alone. */
  get #keepsPrepared(): boolean {
    return this.#isOwnPool && !this.#options.isPooled
  }

  /** Tries again what can pass, within `busyMs`, and once what met a connection that was gone. */
  async #run<T>(
    attempt: (connection: PostgresConnection) => Promise<T>,
    since?: number,
  ): Promise<T> {
    const { busyMs } = this
    let startedAt = 0
    let delayMs = firstDelayMs
    let isSecondTry = false
    while (true) {
      if (this.#isClosed) throw closedError()
      try {
        return await this.#attempt(attempt)
      } catch (error) {
        if (error instanceof BrokenCommit) {
          if (await this.#wasCommitted(error)) return error.result
          continue
        }
        const now = performance.now()
        startedAt ||= now
        const leftMs = (since ?? startedAt) + busyMs - now
        if (isConnectionLost(error) || isTableMissing(error)) {
          this.#isPrepared = false
          if (isSecondTry || isUnreachable(error)) throw this.#fault(error)
          isSecondTry = true
        } else if (isPassing(error) && leftMs > 0) {
          await this.#pause(Math.min(delayMs * (0.5 + Math.random()), leftMs))
          delayMs = Math.min(delayMs * 2, longestDelayMs)
        } else {
          throw this.#fault(error)
        }
      }
    }
  }

  async #attempt<T>(attempt: (connection: PostgresConnection) => Promise<T>): Promise<T> {
    const connection = await this.#connect()
    let fault: unknown
    try {
      await this.#prepare(connection)
      return await attempt(connection)
    } catch (error) {
      fault = error
      throw error
    } finally {
      connection.removeListener('error', ignore)
      const isBroken =
        fault !== undefined && (fault instanceof BrokenCommit || isConnectionLost(fault))
      connection.release(isBroken)
    }
  }

  async #connect(): Promise<PostgresConnection> {
    this.#pool ??= this.#openPool()
    const connection = await this.#pool.connect()
    // While it is out of the pool, an end of the connection would be nobody's and end the process.
    connection.on('error', ignore)
    return connection
  }

  #openPool(): PostgresPool {
    const { pool, poolSize, busyMs, isPooled } = this.#options
    if (isPool(pool)) return pool
    const opened = new (loadPostgresDriver().Pool)({
      max: poolSize,
      idleTimeoutMillis: 60_000,
      allowExitOnIdle: true,
      connectionTimeoutMillis: busyMs,
      query_timeout: 2 * busyMs,
      keepAlive: true,
      application_name: 'channelkit',
      ...(!isPooled && {
        pipeline: true,
        lock_timeout: busyMs,
        idle_in_transaction_session_timeout: idleInTransactionMs,
        // Every statement has an index; a table that was empty when its plan was made is read whole.
        options: '-c enable_seqscan=off -c enable_bitmapscan=off -c jit=off',
      }),
      ...pool,
    })
    // Connections that end while idle leave the pool by themselves.
    opened.on('error', ignore)
    return opened
  }

  async #prepare(connection: PostgresConnection): Promise<void> {
    if (!this.#isPrepared) {
      this.#preparing ??= this.#makeReady(connection).finally(() => {
        this.#preparing = undefined
      })
      await this.#preparing
    }
    if (performance.now() - this.#clockReadAt > clockMs) await this.#readClock(connection)
  }

  async #makeReady(connection: PostgresConnection): Promise<void> {
    const { preparation } = this.#options
    await this.#readClock(connection)
    if (!(await this.#drive(connection, preparation.isMade()))) {
      await this.#inTransaction(connection, () => preparation.make())
    }
    this.#isPrepared = true
  }

  async #readClock(connection: PostgresConnection): Promise<void> {
    const { clock } = this.#options
    const askedAt = performance.now()
    this.#clockReadAt = askedAt
    if (!clock) return
    const text = 'SELECT extract(epoch FROM clock_timestamp()) * 1000 AS now'
    const result = (await connection.query(text)) as PostgresResult
    clock.set(Number(result.rows[0]?.now), askedAt)
  }

  async #inTransaction<T>(
    connection: PostgresConnection,
    work: () => SqlWork<T>,
    stored: (result: T) => ReadonlySet<string> | undefined = () => undefined,
  ): Promise<T> {
    // Not awaited: the first statement of the work travels along.
    const beginning = connection.query(this.#beginText)
    let result: T
    let id: string
    try {
      result = await this.#drive(connection, work())
      id = String(((await beginning) as readonly PostgresResult[]).at(-1)?.rows[0]?.id)
    } catch (error) {
      const [begun] = await Promise.allSettled([beginning])
      const fault = begun.status === 'rejected' ? begun.reason : error
      if (!isConnectionLost(fault)) await connection.query('ROLLBACK')
      throw fault
    }
    try {
      await connection.query(`${this.#signText(stored(result))}COMMIT`)
    } catch (error) {
      throw isConnectionLost(error) ? new BrokenCommit(id, result, error) : error
    }
    return result
  }

  async #drive<T>(connection: PostgresConnection, work: SqlWork<T>): Promise<T> {
    let step = work.next()
    while (!step.done) {
      const result: SqlResult = await runStatement(connection, step.value, this.#keepsPrepared)
      step = work.next(result)
    }
    return step.value
  }

  /**
   * Asks the server what became of a transaction whose commit was not answered.
   *
   * @throws {ChannelkitError} `ERR_BACKEND_UNAVAILABLE` when it is not to be learnt in time.
   */
  async #wasCommitted(broken: BrokenCommit<unknown>): Promise<boolean> {
    const deadline = performance.now() + this.busyMs
    while (!this.#isClosed && performance.now() < deadline) {
      try {
        const found = await this.#attempt(
          (connection) =>
            connection.query(
              `SELECT pg_xact_status('${broken.transactionId}'::xid8) AS status`,
            ) as Promise<PostgresResult>,
        )
        const status = found.rows[0]?.status
        if (status === 'committed' || status === 'aborted') return status === 'committed'
        if (status === null) break
      } catch (error) {
        // The server has never heard of it: it was lost with the server that had.
        if ((error as { readonly code?: unknown }).code === '22023') return false
        if (!isConnectionLost(error)) break
      }
      await this.#pause(longestDelayMs)
    }
    throw new ChannelkitError(
      'ERR_BACKEND_UNAVAILABLE',
      `PostgreSQL at ${this.#server} went away during a commit; what was sent may be stored or not`,
      { cause: broken.cause },
    )
  }

  /** Statements that tell every process of this site where something was stored. */
  #signText(channels: ReadonlySet<string> = new Set()): string {
    let text = ''
    let payload = ''
    const flush = (): void => {
      if (payload === '') return
      text += `NOTIFY ${this.#signName}, '${this.#signFrom}${payload.replaceAll("'", "''")}'; `
      payload = ''
    }
    for (const channel of channels) {
      if (this.#signFrom.length + payload.length + channel.length + 1 > mostPayloadBytes) flush()
      payload += `\n${channel}`
    }
    flush()
    return text
  }

  #listen(): void {
    const { listen, pool, isPooled, busyMs } = this.#options
    if (this.#listener || listen === false || (isPooled && listen === undefined)) return
    const config = listen ?? (isPool(pool) ? undefined : pool)
    this.#listener = new PostgresListener({
      name: this.#signName,
      from: this.#signFrom,
      answerMs: busyMs,
      connect: config ? { config } : { pool: () => this.#connect() },
      onSign: (channels) => {
        for (const poll of this.#polls) poll.sign(channels)
      },
      onState: (isListening) => {
        for (const poll of this.#polls) {
          poll.rest(isListening)
          // Whatever came before it listened gave no sign.
          if (isListening) poll.sign()
        }
      },
    })
    this.#listener.start()
  }

  /** Lets the listener keep the process alive while anybody waits. */
  #holdOpen(): void {
    this.#listener?.keepAlive([...this.#polls].some(({ isActive }) => isActive))
  }

  async #pause(delayMs: number): Promise<void> {
    await sleep(delayMs, undefined, { signal: this.#closing.signal }).catch(() => undefined)
  }

  #fault(error: unknown): ChannelkitError {
    return postgresFault(error, this.#server, this.busyMs)
  }
}

function isPool(pool: PostgresPool | object): pool is PostgresPool {
  return 'connect' in pool && typeof pool.connect === 'function'
}

/** Where a server is, without its password. */
function describeServer(pool: PostgresPool | object): string {
  const { connectionString, host, port } = pool as {
    readonly connectionString?: string
    readonly host?: string
    readonly port?: number
  }
  if (connectionString) return connectionString.replace(/:[^:@/]*@/, ':…@')
  if (isPool(pool)) return 'the given pool'
  return `${host ?? 'localhost'}${port === undefined ? '' : `:${port}`}`
}

/** Whether not even a connection could be made, so that another try now is of no use. */
function isUnreachable(error: unknown): boolean {
  const { code, message } = error as { readonly code?: unknown; readonly message?: unknown }
  if (code === 'ECONNREFUSED' || code === 'ENOENT' || code === 'ENOTFOUND') return true
  return code === '57P03' || (typeof message === 'string' && message.includes('timeout'))
}

function ignore(): void {}

function closedError(): ChannelkitError {
  return new ChannelkitError('ERR_BACKEND_CLOSED', 'the channel backend is closed; open a new one')
}
