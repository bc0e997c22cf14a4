import { createRequire } from 'node:module'
import { ChannelkitError } from '../../errors.ts'
import { textOfBytes } from './postgres-dialect.ts'
import type { SqlResult, SqlRow, SqlValue } from './sql-client.ts'

/** What a statement is given to `pg` as. */
export interface PostgresQuery {
  readonly text: string
  readonly values?: readonly SqlValue[]
  readonly name?: string
  readonly types?: unknown
  /** How long its answer may take, in milliseconds. */
  readonly query_timeout?: number
}

/** What `pg` gives for one statement. */
export interface PostgresResult {
  readonly rows: readonly SqlRow[]
  readonly rowCount: number | null
}

/** A notification as `pg` gives it. */
export interface PostgresNotification {
  readonly payload?: string | undefined
}

/** What this backend uses of a client of `pg`. */
export interface PostgresConnection {
  query(query: PostgresQuery | string): Promise<PostgresResult | readonly PostgresResult[]>
  on(event: 'error' | 'end', listener: (error?: Error) => void): unknown
  on(event: 'notification', listener: (notification: PostgresNotification) => void): unknown
  removeListener(event: string, listener: (...values: never[]) => void): unknown
  release(error?: boolean | Error): void
}

/** What this backend uses of a `Pool` of `pg`. */
export interface PostgresPool {
  readonly options?: { readonly max?: number }
  connect(): Promise<PostgresConnection>
  end(): Promise<void>
  on(event: 'error', listener: (error: Error) => void): unknown
}

/** A client of `pg` outside of a pool. */
interface PostgresClientObject extends Omit<PostgresConnection, 'release'> {
  connect(): Promise<unknown>
  end(): Promise<void>
  ref?(): void
  unref?(): void
}

/** What `pg` exports. */
interface PostgresModule {
  readonly Pool: new (config: object) => PostgresPool
  readonly Client: new (config: object) => PostgresClientObject
}

const require = createRequire(import.meta.url)

/**
 * Loads `pg`.
 *
 * @throws {ChannelkitError} `ERR_INVALID_CONFIG` saying what to install.
 */
export function loadPostgresDriver(): PostgresModule {
  try {
    return require('pg') as PostgresModule
  } catch (cause) {
    throw new ChannelkitError(
      'ERR_INVALID_CONFIG',
      'pg, the driver of PostgreSQL, is not installed here; run "npm install pg"',
      { cause },
    )
  }
}

const asNumber = (text: string): number => Number(text)
const asText = (text: string): string => text
const asBoolean = (text: string): boolean => text === 't'

/** How columns are read, whatever parsers the site has set; `pg` also reads its `length`. */
const types = {
  length: 0,
  getTypeParser(oid: number) {
    // int8, int2, int4
    if (oid === 20 || oid === 21 || oid === 23) return asNumber
    return oid === 16 ? asBoolean : asText
  },
}

/** Texts with `?` → the same with `$1`, `$2` …, and a name to keep it prepared under. */
const prepared = new Map<string, { readonly text: string; readonly name: string }>()

function prepare(text: string): { readonly text: string; readonly name: string } {
  let found = prepared.get(text)
  if (!found) {
    let count = 0
    const numbered = text.replaceAll('?', () => `$${++count}`)
    found = { text: numbered, name: `channelkit_${prepared.size + 1}` }
    prepared.set(text, found)
  }
  return found
}

function parameter(value: SqlValue): SqlValue {
  if (typeof value === 'number') return Number.isInteger(value) ? value : Math.round(value)
  return value instanceof Uint8Array ? textOfBytes(value) : value
}

/**
 * Runs one statement with `?` for its values.
 *
 * @param keepsPrepared - whether the connection is ours from call to call, so that a statement that
 *   was prepared once is there again.
 */
export async function runStatement(
  connection: Pick<PostgresConnection, 'query'>,
  statement: { readonly text: string; readonly values: readonly SqlValue[] },
  keepsPrepared: boolean,
): Promise<SqlResult> {
  const { text, name } = prepare(statement.text)
  const values = statement.values.map(parameter)
  const query = { text, values, types, ...(keepsPrepared && { name }) }
  const { rows, rowCount } = (await connection.query(query)) as PostgresResult
  return { rows, changes: rowCount ?? 0 }
}
