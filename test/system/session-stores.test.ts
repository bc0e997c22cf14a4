import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SqliteSessionStore } from 'channelkit/sessions'
import connectPostgres from 'connect-pg-simple'
import { RedisStore } from 'connect-redis'
import session, { MemoryStore, type Store } from 'express-session'
import pg from 'pg'
import { createClient } from 'redis'
import sessionFileStore from 'session-file-store'
import { describe, expect, it } from 'vitest'
import { startExpressSite } from '../support/express-site.ts'
import { startPostgres, startRedis } from '../support/service-process.ts'

interface OpenedStore {
  readonly store: Store
  [Symbol.asyncDispose](): Promise<void>
}

const newFolder = () => mkdtemp(join(tmpdir(), 'channelkit-store-'))

const stores: Readonly<Record<string, () => Promise<OpenedStore>>> = {
  'the memory store of express-session': async () => ({
    store: new MemoryStore(),
    [Symbol.asyncDispose]: async () => {},
  }),
  async SqliteSessionStore() {
    const folder = await newFolder()
    const store = new SqliteSessionStore({ file: join(folder, 'sessions.sqlite') })
    return {
      store,
      async [Symbol.asyncDispose]() {
        await store.close()
        await rm(folder, { recursive: true })
      },
    }
  },
  async 'session-file-store'() {
    const folder = await newFolder()
    const FileStore = sessionFileStore(session)
    // Its own timer for expired files would keep the process alive.
    const store = new FileStore({ path: folder, retries: 0, reapInterval: -1, logFn: () => {} })
    return { store, [Symbol.asyncDispose]: () => rm(folder, { recursive: true }) }
  },
  async 'connect-redis'() {
    const redis = await startRedis()
    const client = createClient({ socket: { path: join(redis.folder, 'redis.sock'), tls: false } })
    await client.connect()
    return {
      store: new RedisStore({ client }),
      async [Symbol.asyncDispose]() {
        await client.close()
        await redis[Symbol.asyncDispose]()
      },
    }
  },
  async 'connect-pg-simple'() {
    const postgres = await startPostgres()
    const pool = new pg.Pool({ host: postgres.folder, user: 'postgres', database: 'postgres' })
    // Its last connections may be ended by the server before the pool has ended them.
    pool.on('error', () => {})
    const PostgresStore = connectPostgres(session)
    const store = new PostgresStore({
      pool,
      createTableIfMissing: true,
      pruneSessionInterval: false,
    })
    return {
      store,
      async [Symbol.asyncDispose]() {
        await pool.end()
        await postgres[Symbol.asyncDispose]()
      },
    }
  },
}

describe.each(Object.entries(stores))('an Express site on %s', (_, open) => {
  it('is known to its sockets, until its user signs out', async () => {
    await using opened = await open()
    await using site = await startExpressSite(opened.store)
    const cookie = await site.logIn('ann', 'apple')
    const ann = site.open(cookie)
    const stranger = site.open('')
    const forger = site.open(`${cookie}x`)

    expect(await ann.next()).toBe('ann')
    expect(await stranger.next()).toBe('nobody')
    expect(await forger.next()).toBe('nobody')
    expect(await ann.ask()).toBe('ann 1')
    expect(await ann.ask()).toBe('ann 2')
    expect(await stranger.ask()).toBe('nobody 1')
    expect(await site.get('/who', cookie)).toBe('ann')

    expect(await site.post('/logout', cookie)).toBe('bye')

    expect(await ann.closed).toBe(4001)
    expect(await site.get('/who', cookie)).toBe('nobody')
    const again = site.open(cookie)
    expect(await again.next()).toBe('nobody')
    for (const socket of [stranger, forger, again]) await socket.close()
  })

  it('signs in under a key that is new', async () => {
    await using opened = await open()
    await using site = await startExpressSite(opened.store)
    const first = await site.logIn('ann', 'apple')

    const second = await site.logIn('ben', 'banana')

    expect(second).not.toBe(first)
    expect(await site.get('/who', first)).toBe('ann')
    expect(await site.get('/who', second)).toBe('ben')
  })
})
