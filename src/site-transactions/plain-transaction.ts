import { ChannelkitError } from '../errors.ts'
import { statementRunner } from './statement-runner.ts'

/** A client of `pg`, or a connection of `mysql2/promise`. */
export interface QueryConnection {
  query(text: string): Promise<unknown>
}

/** A database of `node:sqlite`, `libsql` or `better-sqlite3`. */
export interface SqliteHandle {
  prepare(text: string): unknown
  exec(text: string): unknown
}

/** A connection that has no function of its own to run a transaction. */
export type PlainConnection = QueryConnection | SqliteHandle

let savepoints = 0

/**
 * Runs a transaction on a connection by the statements themselves; a savepoint where the connection is
 * in a transaction already.
 *
 * @throws {ChannelkitError} `ERR_INVALID_ARGUMENT` for a pool; `ERR_ROLLED_BACK`
 */
export async function plainTransaction<Connection extends PlainConnection, T>(
  connection: Connection,
  run: (connection: Connection) => Promise<T>,
  isWithin: boolean,
): Promise<T> {
  checkConnection(connection)
  const execute = statementRunner(connection)
  if (isWithin) return savepoint(execute, () => run(connection))
  // In SQLite a transaction that reads first and then writes could not be waited for.
  await execute('query' in connection ? 'BEGIN' : 'BEGIN IMMEDIATE')
  let result: T
  try {
    result = await run(connection)
  } catch (error) {
    try {
      await execute('ROLLBACK')
    } catch {
      // The connection is gone, and the transaction with it.
    }
    throw error
  }
  const committed = await execute('COMMIT')
  // PostgreSQL ends a transaction in which a statement has failed so, and calls it no error.
  if ((committed as { readonly command?: unknown } | undefined)?.command === 'ROLLBACK') {
    throw new ChannelkitError(
      'ERR_ROLLED_BACK',
      'the database has rolled the transaction back, since a statement in it failed whose error was caught; let the error end the transaction, or put what may fail into an inTransaction of its own within',
    )
  }
  return result
}

/** What can be rolled back alone: BEGIN would end the transaction it is in, or fail. */
async function savepoint<T>(
  execute: (text: string) => Promise<unknown>,
  run: () => Promise<T>,
): Promise<T> {
  const name = `channelkit_${++savepoints}`
  await execute(`SAVEPOINT ${name}`)
  try {
    const result = await run()
    await execute(`RELEASE SAVEPOINT ${name}`)
    return result
  } catch (error) {
    try {
      await execute(`ROLLBACK TO SAVEPOINT ${name}`)
      await execute(`RELEASE SAVEPOINT ${name}`)
    } catch {
      // The transaction is gone, and the savepoint with it.
    }
    throw error
  }
}

/** Refuses what runs each statement on another connection. */
function checkConnection(connection: object): void {
  // Of a pool of mysql2, of Sequelize and TypeORM's DataSource, and of a Pool of pg.
  const { getConnection, transaction, totalCount } = connection as {
    readonly [name: string]: unknown
  }
  const isPool =
    typeof getConnection === 'function' ||
    typeof totalCount === 'number' ||
    ('query' in connection && typeof transaction === 'function')
  if (!isPool) return
  throw new ChannelkitError(
    'ERR_INVALID_ARGUMENT',
    'inTransaction was given a pool, which runs each statement on any of its connections; give one connection of it, or a function such as (run) => database.transaction(run)',
  )
}
