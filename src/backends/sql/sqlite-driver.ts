import { createRequire } from 'node:module'
import { ChannelkitError, shown } from '../../errors.ts'
import type { SqlRow, SqlValue } from './sql-client.ts'

/** The calls that `node:sqlite`, `libsql` and `better-sqlite3` have in common. */
export interface SqliteDatabase {
  prepare(text: string): SqliteStatement
  exec(text: string): unknown
  close(): unknown
}

/** A prepared statement of a {@link SqliteDatabase}; parameters are given one by one. */
export interface SqliteStatement {
  all(...values: readonly SqlValue[]): unknown[]
  run(...values: readonly SqlValue[]): { readonly changes: number | bigint }
}

/** Drivers that are looked for, in this order. */
export const sqliteDriverNames = ['node:sqlite', 'libsql', 'better-sqlite3'] as const

/** The name of a driver to use instead of the first that is found. */
export type SqliteDriverName = (typeof sqliteDriverNames)[number]

/** Opens the database in a file, which it creates when it is missing. */
export type SqliteDriver = (file: string) => SqliteDatabase

type DatabaseClass = new (file: string) => SqliteDatabase

const require = createRequire(import.meta.url)

/**
 * Loads the named driver, or the first that is there.
 *
 * @throws {ChannelkitError} `ERR_INVALID_CONFIG` saying what to install.
 */
export function loadSqliteDriver(name?: SqliteDriverName): SqliteDriver {
  if (name !== undefined && !sqliteDriverNames.includes(name)) {
    throw new ChannelkitError(
      'ERR_INVALID_CONFIG',
      `driver is ${shown(name)}; give an open database, or one of ${sqliteDriverNames.join(', ')}`,
    )
  }
  let cause: unknown
  for (const candidate of name === undefined ? sqliteDriverNames : [name]) {
    try {
      const Database = loadClass(candidate)
      if (Database) return (file) => new Database(file)
    } catch (error) {
      cause ??= error
    }
  }
  throw new ChannelkitError(
    'ERR_INVALID_CONFIG',
    `${name ?? 'a SQLite driver'} is not installed here; run "npm install libsql" or "npm install better-sqlite3", or use Node 22.13 or newer, which has node:sqlite`,
    { cause },
  )
}

function loadClass(name: SqliteDriverName): DatabaseClass | undefined {
  if (name !== 'node:sqlite') return require(name) as DatabaseClass
  const module = process.getBuiltinModule(name) as { DatabaseSync: DatabaseClass } | undefined
  return module?.DatabaseSync
}

/** A connection whose statements stay prepared. */
export class SqliteConnection {
  readonly #database: SqliteDatabase
  readonly #statements = new Map<string, SqliteStatement>()

  constructor(database: SqliteDatabase) {
    this.#database = database
  }

  all(text: string, values: readonly SqlValue[] = []): readonly SqlRow[] {
    return this.#prepare(text).all(...values) as SqlRow[]
  }

  run(text: string, values: readonly SqlValue[] = []): number {
    return Number(this.#prepare(text).run(...values).changes)
  }

  /**
   * Runs a statement that is not kept. libsql does not reset a kept one that found the database busy: until
   * it runs again it counts as a writer, and under it no read ends, so that later ones see nothing new.
   */
  exec(text: string): void {
    this.#database.exec(text)
  }

  close(): void {
    this.#statements.clear()
    this.#database.close()
  }

  #prepare(text: string): SqliteStatement {
    let statement = this.#statements.get(text)
    if (!statement) {
      statement = this.#database.prepare(text)
      this.#statements.set(text, statement)
    }
    return statement
  }
}
