import { PostgresBackend, type PostgresBackendOptions } from 'channelkit/postgres'
import { channelBackendClauses, runClause } from 'channelkit/testing'
import { afterAll, describe, it } from 'vitest'
import { runPostgres } from '../support/postgres-store.ts'
import { startPgbouncer, startPostgres } from '../support/service-process.ts'

const server = await startPostgres()
const pooler = await startPgbouncer(server)
afterAll(async () => {
  await pooler[Symbol.asyncDispose]()
  await server[Symbol.asyncDispose]()
})

const direct = `postgres://postgres@localhost/postgres?host=${encodeURIComponent(server.folder)}`
const pool = { host: pooler.folder, port: 6432, user: 'postgres', database: 'postgres' }
const ways: Readonly<Record<string, Partial<PostgresBackendOptions>>> = {
  'listening past it': { listenUrl: direct },
  'looking by itself': {},
}
let stores = 0

// Breaking its connection is left to the suite without a pooler.
describe.each(Object.entries(ways))('PostgresBackend behind PgBouncer, %s', (_way, options) => {
  it.each(channelBackendClauses.map((clause) => [clause.id, clause] as const))(
    'keeps %s',
    (_id, clause) =>
      runClause(clause, async () => {
        const schema = `pooled_${++stores}`
        return {
          open: async (limits) =>
            new PostgresBackend({ ...limits, ...options, pool, schema, pgbouncer: true }),
          dispose: async () => {
            await runPostgres(server.folder, `DROP SCHEMA IF EXISTS ${schema} CASCADE`)
          },
        }
      }),
  )
})
