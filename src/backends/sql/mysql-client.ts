import { createHash, randomUUID } from 'node:crypto'
import type { TableNames } from './dialect.ts'
import {
  loadMysqlDriver,
  type MysqlConnection,
  type MysqlPool,
  runStatement,
} from './mysql-driver.ts'
import { mysqlFaults } from './mysql-fault.ts'
import { Poll } from './poll.ts'
import { lockRows, tableNames } from './schema.ts'
import {
  BrokenCommit,
  describeServer,
  ignore,
  ServerClient,
  type ServerClientOptions,
} from './server-client.ts'
import type { OnChange, SqlQuery, SqlResult, SqlWatch, SqlWork, WriteWork } from './sql-client.ts'

// A process that stands still within a transaction holds up its whole site: the server ends it.
const idleInTransactionSeconds = 3
// MySQL has no such limit, but one for any connection that stands still. Ours leave the pool before.
const idleSeconds = 10
const poolIdleMs = 5_000
// The note of a process's last transaction goes so long after it.
const commitsMs = 600_000

export interface MysqlClientOptions
  extends Omit<ServerClientOptions, 'server' | 'faults' | 'busyMs'> {
  readonly tablePrefix: string
  /** How to make a pool of `mysql2`. */
  readonly pool: object
  readonly poolSize: number
  readonly busyMs: number
}

/** A row that `begin` reads, of which only that of a write has this column. */
interface BegunRow {
  readonly has_outbox?: number
}

/**
 * A small pool of connections to a MySQL or MariaDB.
 *
 * Writers of one site take turns by locking one row until their transaction ends. So ids are given in
 * the order in which they are committed, and room is counted exactly. Claims take turns by another
 * row. `SKIP LOCKED` would spare them that, but InnoDB lets go of a transaction's rows one after the
 * other: a claim at that moment passes over the first and takes the second.
 */
export class MysqlClient extends ServerClient<MysqlConnection> {
  readonly #options: MysqlClientOptions
  readonly #tables: TableNames
  readonly #writeText: string
  readonly #claimText: string
  /** Where this process notes the number of its last transaction. */
  readonly #commitsId = `commits.${randomUUID()}`
  #commits = 0
  readonly #polls = new Set<Poll>()
  #pool: MysqlPool | undefined

  constructor(options: MysqlClientOptions) {
    const server = describeServer('the database server', options.pool)
    super({ ...options, server, faults: mysqlFaults })
    this.#options = options
    this.#tables = tableNames(options.tablePrefix)
    const begin = (row: string): string =>
      `START TRANSACTION; SELECT value FROM ${this.#tables.meta} WHERE name = '${row}' FOR UPDATE`
    const outbox = `SELECT EXISTS (SELECT 1 FROM ${this.#tables.outbox}) AS has_outbox`
    this.#writeText = `${begin(lockRows.write)}; ${outbox}`
    this.#claimText = begin(lockRows.claim)
  }

  claim<T>(work: () => SqlWork<T>): Promise<T> {
    return this.run(async (connection) => {
      const result = await this.#transact(connection, this.#claimText, work)
      await connection.query('COMMIT')
      return result
    })
  }

  watch(onChange: OnChange): SqlWatch {
    const poll = new Poll(onChange)
    this.#polls.add(poll)
    return poll
  }

  protected take(): Promise<MysqlConnection> {
    this.#pool ??= this.#openPool()
    return this.#pool.getConnection()
  }

  protected release(connection: MysqlConnection, isBroken: boolean): void {
    if (isBroken) connection.destroy()
    else connection.release()
  }

  protected runStatement(connection: MysqlConnection, query: SqlQuery): Promise<SqlResult> {
    return runStatement(connection, query)
  }

  protected async readClock(connection: MysqlConnection): Promise<number> {
    // Not UNIX_TIMESTAMP(NOW(3)), which is an hour off when clocks of the server's zone are set back.
    const text = "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) / 1000 AS now"
    const [found] = await connection.query(text)
    return Number((found as readonly { readonly now: unknown }[])[0]?.now)
  }

  /** Statements that make tables end the transaction they are in, so a lock by name is held. */
  protected async makeTables(
    connection: MysqlConnection,
    make: () => SqlWork<void>,
  ): Promise<void> {
    const { tablePrefix } = this.#options
    const hash = createHash('sha256').update(tablePrefix).digest('hex').slice(0, 16)
    const name = `CONCAT('channelkit.', '${hash}.', MD5(DATABASE()))`
    const seconds = Math.ceil(this.busyMs / 1_000)
    const [found] = await connection.query(`SELECT GET_LOCK(${name}, ${seconds}) AS held`)
    if ((found as readonly { readonly held: unknown }[])[0]?.held !== 1) {
      throw Object.assign(new Error('another process is making the tables'), {
        code: 'ER_LOCK_WAIT_TIMEOUT',
      })
    }
    try {
      await this.drive(connection, make())
    } finally {
      await connection.query(`DO RELEASE_LOCK(${name})`)
    }
  }

  /** Notes its number, since MySQL remembers no transactions. */
  protected async inTransaction<T>(connection: MysqlConnection, work: WriteWork<T>): Promise<T> {
    const result = await this.#transact(connection, this.#writeText, work)
    const id = String(++this.#commits)
    try {
      await connection.query(
        `INSERT INTO ${this.#tables.process} (id, info, expires_at)
         VALUES ('${this.#commitsId}', '${id}', UNIX_TIMESTAMP() * 1000 + ${commitsMs})
         ON DUPLICATE KEY UPDATE info = VALUES(info), expires_at = VALUES(expires_at); COMMIT`,
      )
    } catch (error) {
      if (mysqlFaults.isConnectionLost(error)) throw new BrokenCommit(id, result, error)
      await connection.query('ROLLBACK')
      throw error
    }
    return result
  }

  /** Behind the lock that it held, so that it is no longer open. */
  protected async wasCommitted(
    connection: MysqlConnection,
    transactionId: string,
  ): Promise<boolean> {
    const text = `SELECT info FROM ${this.#tables.process} WHERE id = '${this.#commitsId}'`
    await connection.query(this.#writeText)
    const [found] = await connection.query(text)
    await connection.query('COMMIT')
    return String((found as readonly { readonly info: unknown }[])[0]?.info) === transactionId
  }

  protected async end(): Promise<unknown> {
    for (const poll of this.#polls) poll.stop()
    return this.#pool?.end()
  }

  async #transact<T>(connection: MysqlConnection, begin: string, work: WriteWork<T>): Promise<T> {
    try {
      const [begun] = await connection.query(begin)
      const last = (begun as readonly BegunRow[][]).at(-1)?.[0]
      return await this.drive(connection, work(Boolean(last?.has_outbox)))
    } catch (error) {
      if (!mysqlFaults.isConnectionLost(error)) await connection.query('ROLLBACK')
      throw error
    }
  }

  #openPool(): MysqlPool {
    const { pool, poolSize, busyMs } = this.#options
    const opened = loadMysqlDriver().createPool({
      connectionLimit: poolSize,
      idleTimeout: poolIdleMs,
      connectTimeout: busyMs,
      enableKeepAlive: true,
      ...pool,
      charset: 'utf8mb4',
      // How rows are read, whatever the rest of the site wants: ids are numbers.
      typeCast: true,
      rowsAsArray: false,
      bigNumberStrings: false,
      // Only constant texts are sent in that way; every value goes apart from its statement.
      multipleStatements: true,
    })
    const lockSeconds = Math.max(1, Math.ceil(busyMs / 1_000))
    opened.on('connection', (connection) => {
      connection.on('error', ignore)
      for (const text of [
        'SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED',
        `SET SESSION innodb_lock_wait_timeout = ${lockSeconds}`,
        `SET SESSION wait_timeout = ${idleSeconds}`,
        // MySQL does not know this one.
        `SET SESSION idle_transaction_timeout = ${idleInTransactionSeconds}`,
      ]) {
        connection.query(text, ignore)
      }
    })
    return opened
  }
}
