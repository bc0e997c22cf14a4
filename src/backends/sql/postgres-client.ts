import { randomUUID } from 'node:crypto'
import { ChannelkitError } from '../../errors.ts'
import { lendConnection } from './lent-connection.ts'
import { Poll } from './poll.ts'
import {
  loadPostgresDriver,
  type PostgresConnection,
  type PostgresPool,
  type PostgresResult,
  runStatement,
} from './postgres-driver.ts'
import { postgresFaults } from './postgres-fault.ts'
import { PostgresListener } from './postgres-listener.ts'
import { postgresNames } from './postgres-signs.ts'
import { tableNames } from './schema.ts'
import {
  BrokenCommit,
  describeServer,
  ignore,
  ServerClient,
  type ServerClientOptions,
} from './server-client.ts'
import type {
  OnChange,
  SqlQuery,
  SqlResult,
  SqlWatch,
  SqlWork,
  WriteOptions,
  WriteWork,
} from './sql-client.ts'

// A process that stands still within a transaction holds up its whole site: the server ends it.
const idleInTransactionMs = 3_000
// A notification takes less than 8,000 bytes.
const mostPayloadBytes = 7_900

export interface PostgresClientOptions
  extends Omit<ServerClientOptions, 'server' | 'faults' | 'busyMs'> {
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
}

/** That a transaction is to be run again, with what lies in the outbox first. */
const unexpectedOutbox = new Error('the outbox has rows')

/**
 * A small pool of connections to a PostgreSQL, and one that listens.
 *
 * Writers of one site take turns by an advisory lock, which lasts until their transaction ends. So
 * ids are given in the order in which they are committed, and room is counted exactly. Claims need
 * no turn: each locks the rows it takes, and passes over those that others have locked.
 */
export class PostgresClient extends ServerClient<PostgresConnection> {
  readonly keepsClaims = true
  readonly #options: PostgresClientOptions
  readonly #isOwnPool: boolean
  readonly #beginText: string
  readonly #outboxText: string
  /** Whether the last write found rows in the outbox, or the next will. */
  #expectsOutbox = false
  /** Name of the notifications of this site. */
  readonly #signName: string
  readonly #signFrom = randomUUID()
  readonly #polls = new Set<Poll>()
  #pool: PostgresPool | undefined
  #listener: PostgresListener | undefined

  constructor(options: PostgresClientOptions) {
    const { schema, tablePrefix, pool, busyMs } = options
    super({ ...options, server: describeServer('PostgreSQL', pool), faults: postgresFaults })
    this.#options = options
    this.#isOwnPool = !isPool(pool)
    this.#checkPool()
    const { signName, lock } = postgresNames(schema, tablePrefix)
    this.#signName = signName
    const settings = this.#keepsPrepared
      ? ''
      : `SET LOCAL lock_timeout = ${busyMs}; SET LOCAL idle_in_transaction_session_timeout = ${idleInTransactionMs}; `
    // At any other level all that it reads is as of before it waited for the lock.
    this.#beginText = `BEGIN ISOLATION LEVEL READ COMMITTED; ${settings}SELECT pg_advisory_xact_lock(${lock}), pg_current_xact_id()::text AS id`
    const { outbox } = tableNames(tablePrefix, schema)
    // As of before it waited for the lock, which is after whatever its callers know of was committed.
    this.#outboxText = `, EXISTS (SELECT FROM ${outbox})::text AS has_outbox`
  }

  expectOutbox(): void {
    this.#expectsOutbox = true
  }

  /** Signs of this process's own, too: it is not the one who runs the statement. */
  sign(channels: readonly string[]): string {
    return `pg_notify('${this.#signName}', E'sql\\n${channels.join('\\n')}')`
  }

  claim<T>(work: () => SqlWork<T>): Promise<T> {
    return this.run((connection) => this.drive(connection, work()))
  }

  watch(onChange: OnChange): SqlWatch {
    const poll = new Poll(onChange)
    this.#polls.add(poll)
    this.#listen()
    poll.rest(this.#listener?.isListening ?? false)
    const setActive = (isActive: boolean): void => {
      if (isActive) poll.resume()
      else poll.pause()
      this.#listener?.keepAlive([...this.#polls].some((each) => each.isActive))
    }
    return {
      resume: () => setActive(true),
      pause: () => setActive(false),
      foundSome: () => poll.foundSome(),
    }
  }

  protected async take(): Promise<PostgresConnection> {
    this.#pool ??= this.#openPool()
    const { busyMs } = this.#options
    const connection = this.#isOwnPool
      ? await this.#pool.connect()
      : await lendConnection(this.#pool, busyMs, 2 * busyMs)
    // While it is out of the pool, an end of the connection would be nobody's and end the process.
    connection.on('error', ignore)
    return connection
  }

  protected release(connection: PostgresConnection, isBroken: boolean): void {
    connection.removeListener('error', ignore)
    connection.release(isBroken)
  }

  protected runStatement(connection: PostgresConnection, query: SqlQuery): Promise<SqlResult> {
    return runStatement(connection, query, this.#keepsPrepared)
  }

  protected async readClock(connection: PostgresConnection): Promise<number> {
    const text = 'SELECT extract(epoch FROM clock_timestamp()) * 1000 AS now'
    const result = (await connection.query(text)) as PostgresResult
    return Number(result.rows[0]?.now)
  }

  protected makeTables(connection: PostgresConnection, make: () => SqlWork<void>): Promise<void> {
    return this.#transact(connection, this.#beginText, make)
  }

  protected async inTransaction<T>(
    connection: PostgresConnection,
    work: WriteWork<T>,
    stored?: WriteOptions<T>['stored'],
  ): Promise<T> {
    const begin = this.#beginText + this.#outboxText
    try {
      const expected = this.#expectsOutbox
      return await this.#transact(connection, begin, () => work(expected), stored, expected)
    } catch (error) {
      if (error !== unexpectedOutbox) throw error
      return await this.#transact(connection, begin, () => work(true), stored)
    }
  }

  /** @throws {unexpectedOutbox} when it finds rows in the outbox that the work leaves alone. */
  async #transact<T>(
    connection: PostgresConnection,
    begin: string,
    work: () => SqlWork<T>,
    stored?: WriteOptions<T>['stored'],
    knowsOutbox = true,
  ): Promise<T> {
    // Not awaited: the first statement of the work travels along.
    const beginning = connection.query(begin)
    beginning.catch(ignore)
    let result: T
    let id: string
    try {
      result = await this.drive(connection, work())
      const begun = ((await beginning) as readonly PostgresResult[]).at(-1)?.rows[0]
      id = String(begun?.id)
      this.#expectsOutbox = begun?.has_outbox === 'true'
      if (this.#expectsOutbox && !knowsOutbox) throw unexpectedOutbox
    } catch (error) {
      const [begun] = await Promise.allSettled([beginning])
      const fault = begun.status === 'rejected' ? begun.reason : error
      if (fault === unexpectedOutbox || !postgresFaults.isConnectionLost(fault)) {
        await connection.query('ROLLBACK')
      }
      throw fault
    }
    try {
      await connection.query(`${this.#signText(stored?.(result))}COMMIT`)
    } catch (error) {
      if (postgresFaults.isConnectionLost(error)) throw new BrokenCommit(id, result, error)
      await connection.query('ROLLBACK')
      throw error
    }
    return result
  }

  protected async wasCommitted(
    connection: PostgresConnection,
    transactionId: string,
  ): Promise<boolean | undefined> {
    const text = `SELECT pg_xact_status('${transactionId}'::xid8) AS status`
    try {
      const { rows } = (await connection.query(text)) as PostgresResult
      const status = rows[0]?.status
      return status === 'in progress' ? undefined : status === 'committed'
    } catch (error) {
      // The server has never heard of it: it was lost with one that had.
      if ((error as { readonly code?: unknown }).code === '22023') return false
      throw error
    }
  }

  protected end(): Promise<unknown> {
    for (const poll of this.#polls) poll.stop()
    return Promise.allSettled([
      this.#listener?.close(),
      this.#isOwnPool ? this.#pool?.end() : undefined,
    ])
  }

  /** Statements that were prepared stay with a connection only where that is ours alone. */
  get #keepsPrepared(): boolean {
    return this.#isOwnPool && !this.#options.isPooled
  }

  /** @throws {ChannelkitError} `ERR_INVALID_CONFIG` for a pool in which calls would wait for each other. */
  #checkPool(): void {
    const { pool, listen, isPooled } = this.#options
    if (!isPool(pool)) return
    const listens = listen === undefined && !isPooled
    const least = listens ? 3 : 2
    const { max = least } = pool.options ?? {}
    if (max >= least) return
    throw new ChannelkitError(
      'ERR_INVALID_CONFIG',
      `the pool has at most ${max} connection${max === 1 ? '' : 's'}; give it max ${least} or more${listens ? ', one of which listens' : ''}`,
    )
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
      connect: config ? { config } : { pool: () => this.take() },
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
}

function isPool(pool: PostgresPool | object): pool is PostgresPool {
  return 'connect' in pool && typeof pool.connect === 'function'
}
