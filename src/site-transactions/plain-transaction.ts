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

/** Runs a transaction on a connection by the statements themselves. */
export async function plainTransaction<Connection extends PlainConnection, T>(
  connection: Connection,
  run: (connection: Connection) => Promise<T>,
): Promise<T> {
  const execute = statementRunner(connection)
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
  await execute('COMMIT')
  return result
}
