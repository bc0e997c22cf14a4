import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SqliteSessionStore, type StoredSession } from 'channelkit/sessions'
import { FakeClock } from 'channelkit/testing'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { destroySession, readSession, writeSession } from '../../../src/sessions/session-store.ts'
import { openDatabase } from '../../support/sqlite-database.ts'

describe('SqliteSessionStore', () => {
  let folder: string
  let clock: FakeClock
  const open: SqliteSessionStore[] = []

  const newStore = (options: { expiryMs?: number } = {}) => {
    const store = new SqliteSessionStore({
      file: join(folder, 'sessions.sqlite'),
      clock,
      ...options,
    })
    open.push(store)
    return store
  }

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'channelkit-sessions-'))
    clock = new FakeClock()
  })

  afterEach(async () => {
    for (const store of open.splice(0)) await store.close()
    await rm(folder, { recursive: true })
  })

  it('keeps a session for every process that opens the file', async () => {
    const [one, other] = [newStore(), newStore()]

    await writeSession(one, 'sid', { cookie: {}, visits: 3 })

    expect(await readSession(other, 'sid')).toEqual({ cookie: {}, visits: 3 })
    expect(await readSession(other, 'none')).toBeUndefined()
  })

  it('ends a session', async () => {
    const store = newStore()
    await writeSession(store, 'sid', { cookie: {} })

    await destroySession(store, 'sid')
    await destroySession(store, 'sid')

    expect(await readSession(store, 'sid')).toBeUndefined()
  })

  it('forgets a session when its cookie expires, or after expiryMs', async () => {
    const store = newStore({ expiryMs: 1_000 })
    const expires = new Date(clock.now() + 5_000).toISOString()
    await writeSession(store, 'dated', { cookie: { expires } })
    await writeSession(store, 'undated', { cookie: { expires: null } })

    await clock.advance(1_000)
    expect(await readSession(store, 'undated')).toBeUndefined()
    expect(await readSession(store, 'dated')).toBeDefined()

    await clock.advance(4_000)
    expect(await readSession(store, 'dated')).toBeUndefined()
  })

  it('puts the expiry off when a session is touched', async () => {
    const store = newStore({ expiryMs: 1_000 })
    await writeSession(store, 'sid', { cookie: {} })
    await clock.advance(900)

    await new Promise<void>((resolve) => {
      store.touch('sid', { cookie: {} }, () => resolve())
    })
    await clock.advance(900)

    expect(await readSession(store, 'sid')).toBeDefined()
  })

  it('loses no update of two connections at once', async () => {
    const stores = [newStore(), newStore()]
    const count = (current: StoredSession | undefined): StoredSession => ({
      ...current,
      count: Number(current?.count ?? 0) + 1,
    })

    await Promise.all(
      Array.from({ length: 100 }, (_, index) => stores[index % 2]?.update('sid', count)),
    )

    expect((await readSession(newStore(), 'sid'))?.count).toBe(100)
  })

  it('leaves a session as it is when an update returns nothing', async () => {
    const store = newStore()

    await store.update('sid', () => undefined)

    expect(await readSession(store, 'sid')).toBeUndefined()
  })

  it('shows nothing of a damaged session', async () => {
    const store = newStore()
    await writeSession(store, 'sid', { cookie: {} })
    const database = openDatabase(join(folder, 'sessions.sqlite'))
    database.exec(`UPDATE channelkit_session SET data = '{"token": secret'`)
    database.close()

    const error = await readSession(store, 'sid').catch((caught: unknown) => caught)

    expect(error).toMatchObject({ code: 'ERR_SESSION_STORE' })
    expect(String((error as Error).stack)).not.toContain('secret')
  })

  it.each(['set', 'touch'] as const)('refuses to %s a session until no date', async (call) => {
    const store = newStore()

    const refused = new Promise((resolve) => {
      store[call]('sid', { cookie: { expires: 'soon' } }, resolve)
    })

    expect(await refused).toMatchObject({
      code: 'ERR_INVALID_ARGUMENT',
      message: expect.stringContaining('until "soon"'),
    })
  })

  it.each([
    [{ file: '' }, 'file is ""'],
    [{ file: ':memory:' }, 'file is ":memory:"'],
    [{ file: 'x', table: 'a; DROP' }, 'table is "a; DROP"'],
  ])('refuses %j', (options, message) => {
    expect(() => new SqliteSessionStore(options)).toThrow(message)
  })
})
