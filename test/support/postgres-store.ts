import { join } from 'node:path'
import { PostgresBackend, type PostgresBackendOptions } from 'channelkit/postgres'
import type { TestStore } from 'channelkit/testing'
import pg from 'pg'
import { startProxy } from './proxy.ts'
import type { StartedService } from './service-process.ts'

let stores = 0

/** A schema of its own in a PostgreSQL that a test started, behind a proxy that can be cut. */
export async function createPostgresStore(
  { folder }: StartedService,
  settings: Partial<PostgresBackendOptions> = {},
): Promise<TestStore> {
  const proxy = await startProxy(join(folder, '.s.PGSQL.5432'))
  const schema = `store_${++stores}`
  const url = `postgres://postgres@127.0.0.1:${proxy.port}/postgres`
  return {
    open: async (options) => new PostgresBackend({ ...settings, ...options, url, schema }),
    breakConnection: () => proxy.cut(),
    async dispose() {
      await runPostgres(folder, `DROP SCHEMA IF EXISTS ${schema} CASCADE`)
      await proxy.close()
    },
  }
}

/** Runs statements as the server's owner. */
export async function runPostgres(folder: string, text: string): Promise<pg.QueryResult> {
  const client = new pg.Client({ host: folder, user: 'postgres', database: 'postgres' })
  await client.connect()
  try {
    return await client.query(text)
  } finally {
    await client.end()
  }
}
