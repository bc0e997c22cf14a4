import { createRequire } from 'node:module'
import type { OpenTransaction } from 'channelkit'
import { drizzle as drizzleMysql } from 'drizzle-orm/mysql2'
import { drizzle as drizzlePostgres } from 'drizzle-orm/node-postgres'
import knex from 'knex'
import { Kysely, MysqlDialect, PostgresDialect, SqliteDialect, sql, type Transaction } from 'kysely'
import mysql from 'mysql2'
import pg from 'pg'
import { Sequelize, type Transaction as SequelizeTransaction } from 'sequelize'
import { DataSource, type EntityManager } from 'typeorm'
import { loadSqliteDriver } from '../../src/backends/sql/sqlite-driver.ts'

const require = createRequire(import.meta.url)

/** A library by which a site may run its transactions, opened on a database. */
export interface OpenedLibrary {
  /** Runs a transaction by the library's own call. */
  readonly open: OpenTransaction<never, void>
  /** Runs one statement by the transaction's handle, as the library has it. */
  readonly query: (transaction: never, text: string) => Promise<unknown>
  readonly close: () => Promise<unknown>
}

type OpenLibrary = (url: string) => Promise<OpenedLibrary>

function kyselyLibrary(db: Kysely<object>): OpenedLibrary {
  return {
    open: (run) => db.transaction().execute(run as never),
    query: (transaction: Transaction<object>, text) => sql.raw(text).execute(transaction),
    close: () => db.destroy(),
  }
}

function knexLibrary(db: knex.Knex): OpenedLibrary {
  return {
    open: (run) => db.transaction(run as never) as Promise<never>,
    query: async (transaction: knex.Knex.Transaction, text) => transaction.raw(text),
    close: () => db.destroy(),
  }
}

function sequelizeLibrary(db: Sequelize): OpenedLibrary {
  return {
    open: (run) => db.transaction(run as never) as Promise<never>,
    query: (transaction: SequelizeTransaction, text) => db.query(text, { transaction }),
    close: () => db.close(),
  }
}

async function typeormLibrary(source: DataSource): Promise<OpenedLibrary> {
  await source.initialize()
  return {
    open: (run) => source.transaction(run as never),
    query: (manager: EntityManager, text) => manager.query(text),
    close: () => source.destroy(),
  }
}

/** How a TypeORM site that runs its transactions by a QueryRunner does it. */
async function queryRunnerLibrary(source: DataSource): Promise<OpenedLibrary> {
  await source.initialize()
  return {
    async open(run) {
      const runner = source.createQueryRunner()
      await runner.startTransaction()
      try {
        await run(runner as never)
        await runner.commitTransaction()
      } catch (error) {
        await runner.rollbackTransaction()
        throw error
      } finally {
        await runner.release()
      }
    },
    query: (runner: { query(text: string): Promise<unknown> }, text) => runner.query(text),
    close: () => source.destroy(),
  }
}

interface Executing {
  execute(text: string): Promise<unknown>
}

const mysqlUrl = (url: string): string => url.replace(/^mariadb:/, 'mysql:')

function mysqlOptions(url: string) {
  const { pathname, searchParams } = new URL(url)
  return {
    user: 'root',
    database: pathname.slice(1),
    socketPath: searchParams.get('socketPath') ?? '',
  }
}

const postgresOptions = (url: string) => ({
  host: new URL(url).searchParams.get('host') ?? '',
  user: 'postgres',
  database: new URL(url).pathname.slice(1),
})

/** Libraries by database, each under the name it has in the names of tests. */
export const libraries: Readonly<Record<string, Readonly<Record<string, OpenLibrary>>>> = {
  SQLite: {
    Kysely: async (url) => {
      const database = loadSqliteDriver('libsql')(url.slice('sqlite:'.length))
      return kyselyLibrary(
        new Kysely({ dialect: new SqliteDialect({ database: database as never }) }),
      )
    },
    TypeORM: (url) =>
      typeormLibrary(
        new DataSource({
          type: 'better-sqlite3',
          driver: require('libsql'),
          database: url.slice('sqlite:'.length),
        }),
      ),
  },
  PostgreSQL: {
    Kysely: async (url) => {
      const pool = new pg.Pool({ connectionString: url })
      return kyselyLibrary(new Kysely({ dialect: new PostgresDialect({ pool }) }))
    },
    Knex: async (url) => knexLibrary(knex({ client: 'pg', connection: postgresOptions(url) })),
    Drizzle: async (url) => {
      const pool = new pg.Pool({ connectionString: url })
      const db = drizzlePostgres(pool)
      return {
        open: (run) => db.transaction(run as never),
        query: (transaction: Executing, text) => transaction.execute(text),
        close: () => pool.end(),
      }
    },
    Sequelize: async (url) => {
      const { user: username, ...options } = postgresOptions(url)
      return sequelizeLibrary(
        new Sequelize({ dialect: 'postgres', username, ...options, logging: false }),
      )
    },
    TypeORM: (url) => {
      const { user: username, ...options } = postgresOptions(url)
      return typeormLibrary(new DataSource({ type: 'postgres', username, ...options }))
    },
    "TypeORM's QueryRunner": (url) => {
      const { user: username, ...options } = postgresOptions(url)
      return queryRunnerLibrary(new DataSource({ type: 'postgres', username, ...options }))
    },
  },
  MariaDB: {
    Kysely: async (url) => {
      const pool = mysql.createPool(mysqlOptions(url))
      return kyselyLibrary(new Kysely({ dialect: new MysqlDialect({ pool }) }))
    },
    Knex: async (url) => knexLibrary(knex({ client: 'mysql2', connection: mysqlOptions(url) })),
    Drizzle: async (url) => {
      const pool = mysql.createPool(mysqlUrl(url))
      const db = drizzleMysql(pool)
      return {
        open: (run) => db.transaction(run as never),
        query: (transaction: Executing, text) => transaction.execute(text),
        close: () => pool.promise().end(),
      }
    },
    Sequelize: async (url) => {
      const { user: username, socketPath, database } = mysqlOptions(url)
      const dialectOptions = { socketPath }
      return sequelizeLibrary(
        new Sequelize({ dialect: 'mysql', username, database, dialectOptions, logging: false }),
      )
    },
    TypeORM: (url) => {
      const { user: username, ...options } = mysqlOptions(url)
      return typeormLibrary(new DataSource({ type: 'mysql', username, ...options }))
    },
  },
}
