import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { withPostgresUpdates, withRedisUpdates } from 'channelkit/sessions'
import connectPostgres from 'connect-pg-simple'
import { RedisStore } from 'connect-redis'
import session from 'express-session'
import pg from 'pg'
import { createClient } from 'redis'
import { describe, expect, it } from 'vitest'
import {
  readSession,
  type SessionStore,
  type StoredSession,
  writeSession,
} from '../../src/sessions/session-store.ts'
import { repository, withoutTestRunner } from '../support/cli.ts'
import { startPostgres, startRedis } from '../support/service-process.ts'

const execute = promisify(execFile)

interface OpenedStore {
  readonly store: SessionStore & Required<Pick<SessionStore, 'update'>>
  /** How a process of the test opens the same store. */
  readonly place: string
  /** In how many milliseconds a session expires, by the database itself. */
  expiresInMs(sid: string): Promise<number>
  [Symbol.asyncDispose](): Promise<void>
}

const stores: Readonly<Record<string, () => Promise<OpenedStore>>> = {
  async 'connect-redis'() {
    const redis = await startRedis()
    const path = join(redis.folder, 'redis.sock')
    const client = createClient({ socket: { path, tls: false } })
    await client.connect()
    return {
      store: withRedisUpdates(new RedisStore({ client })),
      place: `redis ${path}`,
      expiresInMs: (sid) => client.pTTL(`sess:${sid}`),
      async [Symbol.asyncDispose]() {
        await client.close()
        await redis[Symbol.asyncDispose]()
      },
    }
  },
  async 'connect-pg-simple'() {
    const postgres = await startPostgres()
    const pool = new pg.Pool({ host: postgres.folder, user: 'postgres', database: 'postgres' })
    pool.on('error', () => {})
    const PostgresStore = connectPostgres(session)
    const store = new PostgresStore({
      pool,
      createTableIfMissing: true,
      pruneSessionInterval: false,
    })
    // The store makes its table at its first call.
    await readSession(store, 'none')
    return {
      store: withPostgresUpdates(store, { pool }),
      place: `postgres ${postgres.folder}`,
      async expiresInMs(sid) {
        const text =
          'SELECT extract(epoch FROM expire - now()) * 1000 AS ms FROM session WHERE sid = $1'
        const { rows } = await pool.query(text, [sid])
        return Number(rows[0].ms)
      },
      async [Symbol.asyncDispose]() {
        await pool.end()
        await postgres[Symbol.asyncDispose]()
      },
    }
  },
}

describe.each(Object.entries(stores))('update of %s', (_, open) => {
  it('loses no write of three processes, and none of twenty that overlap', async () => {
    await using opened = await open()
    const { store, place } = opened
    const script = join(repository, 'test/support/session-process.ts')
    const options = { cwd: repository, env: withoutTestRunner(process.env) }
    const count = (found: StoredSession | undefined): StoredSession => ({
      cookie: {},
      ...found,
      count: Number(found?.count ?? 0) + 1,
    })

    const runs = ['a', 'b', 'c'].map((name) =>
      execute(process.execPath, ['--import', 'tsx', script, place, name, '100'], options),
    )
    await Promise.all(Array.from({ length: 20 }, () => store.update('counted', count)))
    const logs = (await Promise.all(runs)).map(({ stdout }) => stdout)

    expect((await readSession(store, 'counted'))?.count).toBe(20)
    expect(logs.map((log) => JSON.parse(log))).toEqual([
      { keys: 300 },
      { keys: 300 },
      { keys: 300 },
    ])
  })

  it('stores what is new, leaves what is not to change, and brings nothing back', async () => {
    await using opened = await open()
    const { store } = opened
    const seen: (StoredSession | undefined)[] = []

    await store.update('sid', () => ({ cookie: {}, made: true }))
    await store.update('sid', (found) => {
      seen.push(found)
      return undefined
    })
    await store.update('none', (found) => found && { ...found, back: true })

    expect(seen).toEqual([{ cookie: {}, made: true }])
    expect(await readSession(store, 'sid')).toEqual({ cookie: {}, made: true })
    expect(await readSession(store, 'none')).toBeUndefined()
  })

  it('keeps a session that ends while it is changed from coming back', async () => {
    await using opened = await open()
    const { store } = opened
    await writeSession(store, 'sid', { cookie: {}, userId: 1 })
    const found: unknown[] = []
    const ended: Promise<unknown>[] = []

    await store.update('sid', (current) => {
      found.push(current?.userId)
      if (ended.length === 0) ended.push(new Promise((resolve) => store.destroy('sid', resolve)))
      return current && { ...current, seen: true }
    })
    await Promise.all(ended)

    expect(await readSession(store, 'sid')).toBeUndefined()
  })

  it('lets it expire with its cookie, or after a day', async () => {
    await using opened = await open()
    const { store, expiresInMs } = opened
    const expires = new Date(Date.now() + 60_000)

    await store.update('dated', () => ({ cookie: { expires } }))
    await store.update('undated', () => ({ cookie: {} }))

    expect(await expiresInMs('dated')).toBeGreaterThan(50_000)
    expect(await expiresInMs('dated')).toBeLessThan(62_000)
    expect(await expiresInMs('undated')).toBeGreaterThan(86_000_000)
    expect(await expiresInMs('undated')).toBeLessThan(86_402_000)
  })
})
