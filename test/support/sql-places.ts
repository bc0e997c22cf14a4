import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { BackendOptions, ChannelBackend } from 'channelkit/backend'
import { MysqlBackend } from 'channelkit/mysql'
import { PostgresBackend } from 'channelkit/postgres'
import { runMysql } from './mysql-store.ts'
import { runPostgres } from './postgres-store.ts'
import { type StartedService, startMariadb, startPostgres } from './service-process.ts'

/** Where databases are made, each for one test. */
export interface SqlPlace {
  /** Makes an empty database, and returns the URL of a backend on it. */
  newUrl(): Promise<string>
  [Symbol.asyncDispose](): Promise<void>
}

/** Options that both database servers' backends have. */
export interface ServerOptions extends BackendOptions {
  readonly busyMs?: number
  readonly migrate?: 'auto' | 'manual'
}

/** Opens a database server's URL with options. */
export function openServerUrl(url: string, options: ServerOptions = {}): ChannelBackend {
  const Backend = url.startsWith('postgres:') ? PostgresBackend : MysqlBackend
  return new Backend({ url, ...options })
}

/** A server of each kind, started anew, by the name it has in the names of tests. */
export const sqlPlaces: Readonly<Record<string, () => Promise<SqlPlace>>> = {
  async SQLite() {
    const folder = await mkdtemp(join(tmpdir(), 'channelkit-places-'))
    let count = 0
    return {
      newUrl: async () => `sqlite:${join(folder, `${++count}.db`)}`,
      [Symbol.asyncDispose]: () => rm(folder, { recursive: true }),
    }
  },
  async PostgreSQL() {
    return postgresPlace(await startPostgres())
  },
  async MariaDB() {
    return mysqlPlace(await startMariadb())
  },
}

/** Databases in a PostgreSQL that runs. */
export function postgresPlace(server: StartedService): SqlPlace {
  let count = 0
  return {
    async newUrl() {
      const name = `test_${++count}`
      await runPostgres(server.folder, `CREATE DATABASE ${name}`)
      return `postgres://postgres@localhost/${name}?host=${encodeURIComponent(server.folder)}`
    },
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  }
}

/** Databases in a MariaDB that runs. */
export function mysqlPlace(server: StartedService): SqlPlace {
  let count = 0
  return {
    async newUrl() {
      const name = `test_${++count}`
      await runMysql(server.folder, `CREATE DATABASE ${name}`)
      const socket = encodeURIComponent(join(server.folder, 'mariadb.sock'))
      return `mariadb://root@localhost/${name}?socketPath=${socket}`
    },
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  }
}
