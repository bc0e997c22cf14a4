import { mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { inspect } from 'node:util'
import { defineRouting, httpSession } from 'channelkit'
import { SqliteSessionStore, signCookie } from 'channelkit/sessions'
import { TestSite } from 'channelkit/testing'
import connectPostgres from 'connect-pg-simple'
import { RedisStore } from 'connect-redis'
import session, { MemoryStore, type Store } from 'express-session'
import pg from 'pg'
import { createClient } from 'redis'
import sessionFileStore from 'session-file-store'
import { describe, expect, it } from 'vitest'
import { systemClock } from '../../src/internal/clock.ts'
import { writeSession } from '../../src/sessions/session-store.ts'
import { SharedStore } from '../../src/sessions/shared-store.ts'
import { StoreAnswers } from '../../src/sessions/store-answers.ts'
import { startExpressSite } from '../support/express-site.ts'
import { startPostgres, startRedis } from '../support/service-process.ts'

interface OpenedStore {
  readonly store: Store
  [Symbol.asyncDispose](): Promise<void>
}

const newFolder = () => mkdtemp(join(tmpdir(), 'channelkit-store-'))

async function newDisposableFolder() {
  const folder = await newFolder()
  return { folder, [Symbol.asyncDispose]: () => rm(folder, { recursive: true }) }
}

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

describe('session-file-store', () => {
  it('logs no key when a file cannot be read', async () => {
    await using opened = await newDisposableFolder()
    const { folder } = opened
    const FileStore = sessionFileStore(session)
    const store = new FileStore({ path: folder, retries: 0, reapInterval: -1, logFn: () => {} })
    const key = 'SecretSessionKey123'
    await symlink(join(folder, `${key}.json`), join(folder, `${key}.json`))
    const secret = 'a secret of this test'
    await using site = await TestSite.open({
      routing: defineRouting({ 'websocket.connect': httpSession(() => {}) }),
      session: { store, secret },
    })

    await site.connect('/', { cookies: { 'connect.sid': signCookie(key, [secret]) } })

    const error = await site.expectError('ELOOP')
    expect(error).toMatchObject({ code: 'ERR_SESSION_STORE' })
    expect(inspect(error, { depth: 9, showHidden: true })).not.toContain(key)
  })

  it('makes no path of a key in a URL', async () => {
    await using opened = await newDisposableFolder()
    const { folder } = opened
    const FileStore = sessionFileStore(session)
    const path = join(folder, 'sessions')
    const store = new FileStore({ path, retries: 0, reapInterval: -1, logFn: () => {} })
    const file = join(folder, 'a-file-of-another-kind.json')
    await writeFile(file, '{"name":"channelkit"}')
    const found: unknown[] = []
    await using site = await TestSite.open({
      routing: defineRouting({
        'websocket.connect': httpSession((message) => {
          found.push(message.httpSession)
          if (message.httpSession) message.httpSession.visits = 1
        }),
      }),
      session: { store, secret: 'a secret of this test' },
    })

    await site.connect('/?session_key=../a-file-of-another-kind')
    await site.drain()

    expect(found).toEqual([null])
    expect(await readFile(file, 'utf8')).toBe('{"name":"channelkit"}')
  })
})

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

  it('has sessions that last longer when they are touched, and end for good', async () => {
    await using opened = await open()
    const { store } = opened
    const shared = new SharedStore({
      store,
      answers: new StoreAnswers({ timeoutMs: 5_000, clock: systemClock }),
      clock: systemClock,
      onEnded: () => {},
      onOverwritten: () => {},
    })
    const inMs = (ms: number) => ({
      path: '/',
      originalMaxAge: ms,
      expires: new Date(Date.now() + ms),
    })
    await writeSession(store, 'sid', { cookie: inMs(60_000), name: 'ann' })

    await shared.touch('sid', { cookie: inMs(120_000), name: 'ann' })
    const kept = await shared.read('sid')
    await new Promise((resolve) => store.destroy('sid', resolve))
    await shared.touch('sid', { cookie: inMs(120_000), name: 'ann' }).catch(() => {})

    expect(kept).toMatchObject({ name: 'ann' })
    expect(await shared.read('sid')).toBeUndefined()
    shared.close()
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
