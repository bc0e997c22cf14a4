import type { RunStatement } from '../backends/channel-backend.ts'
import { ChannelkitError, shown } from '../errors.ts'

/** What a handle of a driver or builder may have. */
type Handle = Readonly<Record<string, unknown>>

/** How to know a kind of transaction's handle, and how to run a statement by it. */
interface Kind {
  readonly isIt: (handle: Handle) => boolean
  readonly run: (handle: never, text: string) => unknown
}

function has(...names: readonly string[]): (handle: Handle) => boolean {
  return (handle) => names.every((name) => typeof handle[name] === 'function')
}

/** The first that fits is taken: several have a method `query` or `execute`. */
const kinds: readonly Kind[] = [
  {
    // Kysely's Transaction.
    isIt: has('executeQuery', 'selectFrom'),
    run: (handle: { executeQuery(query: object): unknown }, text) =>
      handle.executeQuery({
        sql: text,
        parameters: [],
        query: { kind: 'RawNode', sqlFragments: [text], parameters: [] },
        queryId: { queryId: 'channelkit' },
      }),
  },
  {
    // Knex's Transaction.
    isIt: has('raw', 'savepoint'),
    run: (handle: { raw(text: string): unknown }, text) => handle.raw(text),
  },
  {
    // Drizzle's transaction in PostgreSQL and MySQL.
    isIt: has('execute', 'select', 'insert', 'rollback'),
    run: (handle: { execute(text: string): unknown }, text) => handle.execute(text),
  },
  {
    // Drizzle's transaction in SQLite.
    isIt: has('run', 'select', 'insert', 'rollback'),
    run: (handle: { run(text: string): unknown }, text) => handle.run(text),
  },
  {
    // Sequelize's Transaction.
    isIt: (handle) => has('commit', 'rollback', 'afterCommit')(handle) && 'sequelize' in handle,
    run: (handle: { readonly sequelize: SequelizeLike }, text) =>
      handle.sequelize.query(text, { transaction: handle }),
  },
  {
    // An EntityManager or QueryRunner of TypeORM, a client of pg, a connection of mysql2/promise.
    isIt: has('query'),
    run: (handle: { query(text: string): unknown }, text) => handle.query(text),
  },
  {
    // A database of node:sqlite, libsql or better-sqlite3.
    isIt: has('prepare', 'exec'),
    run: (handle: { exec(text: string): unknown }, text) => handle.exec(text),
  },
]

interface SequelizeLike {
  query(text: string, options: object): unknown
}

/**
 * How to run a statement in an open transaction.
 *
 * @throws {ChannelkitError} `ERR_INVALID_ARGUMENT` for a handle of no known kind.
 */
export function statementRunner(handle: unknown): RunStatement {
  const isHandle = (typeof handle === 'object' || typeof handle === 'function') && handle !== null
  const kind = isHandle ? kinds.find(({ isIt }) => isIt(handle as Handle)) : undefined
  if (kind) return async (text) => kind.run(handle as never, text)
  throw new ChannelkitError(
    'ERR_INVALID_ARGUMENT',
    `${shown(handle)} is no transaction of a known driver; give { run: (statement, transaction) => … }, which runs a statement in it`,
  )
}
