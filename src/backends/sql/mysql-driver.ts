import { createRequire } from 'node:module'
import { ChannelkitError } from '../../errors.ts'
import type { SqlQuery, SqlResult, SqlRow, SqlValue } from './sql-client.ts'

/** What this backend uses of a connection of `mysql2/promise`. */
export interface MysqlConnection {
  execute(text: string, values: readonly unknown[]): Promise<readonly [unknown, unknown]>
  query(text: string): Promise<readonly [unknown, unknown]>
  release(): void
  destroy(): void
}

/** What this backend uses of a pool of `mysql2/promise`. */
export interface MysqlPool {
  getConnection(): Promise<MysqlConnection>
  end(): Promise<void>
  on(event: 'connection', listener: (connection: MysqlRawConnection) => void): unknown
}

/** A connection as the pool's event gives it, with callbacks. */
interface MysqlRawConnection {
  query(text: string, done: (error: unknown) => void): unknown
  on(event: 'error', listener: (error: Error) => void): unknown
}

interface MysqlModule {
  createPool(config: object): MysqlPool
}

const require = createRequire(import.meta.url)

/**
 * Loads `mysql2`.
 *
 * @throws {ChannelkitError} `ERR_INVALID_CONFIG` saying what to install.
 */
export function loadMysqlDriver(): MysqlModule {
  try {
    return require('mysql2/promise') as MysqlModule
  } catch (cause) {
    throw new ChannelkitError(
      'ERR_INVALID_CONFIG',
      'mysql2, the driver of MySQL and MariaDB, is not installed here; run "npm install mysql2"',
      { cause },
    )
  }
}

/** Runs one statement, prepared on its connection. */
export async function runStatement(
  connection: Pick<MysqlConnection, 'execute'>,
  { text, values, returnsRows }: SqlQuery,
): Promise<SqlResult> {
  const [result] = await connection.execute(text, values.map(parameter))
  if (!returnsRows) {
    return { rows: [], changes: (result as { readonly affectedRows: number }).affectedRows }
  }
  return { rows: (result as readonly Record<string, unknown>[]).map(row), changes: 0 }
}

// The driver sends numbers as floating-point ones, which LIMIT does not take.
function parameter(value: SqlValue): unknown {
  if (typeof value === 'number') return String(Math.round(value))
  if (value instanceof Uint8Array && !Buffer.isBuffer(value)) return Buffer.from(value)
  return value
}

/** Names stand in columns of bytes; only content is wanted as it is. */
function row(found: Readonly<Record<string, unknown>>): SqlRow {
  const read: Record<string, SqlValue> = {}
  for (const name of Object.keys(found)) {
    const value = found[name]
    const isName = value instanceof Uint8Array && name !== 'content'
    read[name] = isName ? (value as Buffer).toString() : (value as SqlValue)
  }
  return read
}
