import { mkdtemp, rm, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { type BetterAuthOptions, betterAuth } from 'better-auth'
import { memoryAdapter } from 'better-auth/adapters/memory'
import { issueTicket } from 'channelkit'
import { betterAuthUser, SqliteSessionStore } from 'channelkit/sessions'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { startBetterAuthSite } from '../support/better-auth-site.ts'
import { codeBlocks, writeBlocks } from '../support/code-blocks.ts'

const modules = new URL('../../node_modules', import.meta.url)
const secret = 'a secret of this test alone, 40 letters.'
const ann = { name: 'ann', email: 'ann@example.com', password: 'apple pie' }
const ben = { name: 'ben', email: 'ben@example.com', password: 'banana split' }

let folder: string
let store: SqliteSessionStore

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'channelkit-better-auth-'))
  store = new SqliteSessionStore({ file: join(folder, 'sessions.sqlite') })
})

afterEach(async () => {
  await store.close()
  await rm(folder, { recursive: true })
})

/** A site with the Better Auth of docs/sessions.md, as it stands there. */
async function startSiteOfTheDocs() {
  const blocks = await codeBlocks('docs/sessions.md')
  await using files = await writeBlocks(
    blocks.filter(({ caption }) => caption === 'better-auth.ts'),
  )
  await symlink(fileURLToPath(modules), join(files.folder, 'node_modules'))
  const { app, auth } = await import(pathToFileURL(join(files.folder, 'better-auth.ts')).href)
  return startBetterAuthSite({ app, auth, store, secret })
}

describe('a site with Better Auth', () => {
  it('gives tickets for the request of a page, and none for what it calls a session', async () => {
    await using site = await startSiteOfTheDocs()
    const cookie = await site.signUp(ann)

    const socket = await site.openByTicket(cookie)

    expect([await socket.next(), await socket.ask()]).toEqual(['ann', 'ann'])
    await expect(issueTicket({ id: 'an id' }, { origin: 'http://127.0.0.1' })).rejects.toThrow(
      'give issueTicket the request',
    )
    await socket.close()
  })

  it('knows who its sockets are, by the cookie it has set', async () => {
    await using site = await startSiteOfTheDocs()
    const first = await site.signUp(ann)
    const second = await site.signIn(ann)
    const other = await site.signUp(ben)
    const sockets = [first, second, other, '', `${first}x`].map((cookie) => site.open(cookie))

    const names = await Promise.all(
      sockets.map(async (each) => [await each.next(), await each.ask()]),
    )

    expect(first).toMatch(/^better-auth\.session_token=\w{32}\./)
    expect(second).not.toBe(first)
    expect(names).toEqual([
      ['ann', 'ann'],
      ['ann', 'ann'],
      ['ben', 'ben'],
      ['nobody', 'nobody'],
      ['nobody', 'nobody'],
    ])
    for (const socket of sockets) await socket.close()
  })

  it('closes the sockets of a user who signs out, and knows the cookie no more', async () => {
    await using site = await startSiteOfTheDocs()
    const cookie = await site.signUp(ann)
    const other = await site.signUp(ben)
    const socket = site.open(cookie)
    const calm = site.open(other)
    expect([await socket.next(), await calm.next()]).toEqual(['ann', 'ben'])

    await site.signOut(cookie)

    expect(await socket.closed).toBe(4001)
    expect(await site.who(cookie)).toBe('nobody')
    const again = site.open(cookie)
    expect(await again.next()).toBe('nobody')
    expect(await calm.ask()).toBe('ben')
    for (const each of [again, calm]) await each.close()
  })

  it('closes them when the password changes, and knows the new session alone', async () => {
    await using site = await startSiteOfTheDocs()
    const atHome = await site.signUp(ann)
    const atWork = await site.signIn(ann)
    const sockets = [site.open(atHome), site.open(atWork)]
    for (const socket of sockets) expect(await socket.next()).toBe('ann')

    const renewed = await site.changePassword(atHome, ann, 'apricot jam')

    for (const socket of sockets) expect(await socket.closed).toBe(4001)
    const after = [atHome, atWork, renewed].map((cookie) => site.open(cookie))
    const names = await Promise.all(after.map((socket) => socket.next()))
    expect(names).toEqual(['nobody', 'nobody', 'ann'])
    for (const socket of after) await socket.close()
  })

  /** A Better Auth that tells nobody when a session ends, so that sockets stay open. */
  const silent = (tables: ReturnType<typeof newTables>, options: BetterAuthOptions) =>
    betterAuth({
      database: memoryAdapter(tables),
      secret,
      emailAndPassword: { enabled: true },
      logger: { disabled: true },
      ...options,
    })
  const newTables = () => ({ user: [], session: [], account: [], verification: [] })
  const siteOf = (signIn: ReturnType<typeof silent>, ownSecret: string | string[] = secret) =>
    startBetterAuthSite({
      app: { fetch: signIn.handler },
      auth: betterAuthUser(signIn),
      store,
      secret: ownSecret,
    })

  it.each<[string, BetterAuthOptions, RegExp]>([
    ['with its cookie cache', { session: { cookieCache: { enabled: true } } }, /^better-auth\./],
    ['under another prefix', { advanced: { cookiePrefix: 'shop' } }, /^shop\.session_token=/],
    [
      'under another name',
      { advanced: { cookies: { session_token: { name: 'sid.session_token' } } } },
      /^sid\.session_token=/,
    ],
    [
      'with a base URL for each host',
      { baseURL: { allowedHosts: ['127.0.0.1:*'], protocol: 'http' } },
      /^better-auth\./,
    ],
    ['marked as secure', { advanced: { useSecureCookies: true } }, /^__Secure-better-auth\./],
  ])('is right about open sockets from the moment of signing out, %s', async (_, options, name) => {
    await using site = await siteOf(silent(newTables(), options))
    const cookie = await site.signUp(ann)
    const socket = site.open(cookie)
    expect(cookie).toMatch(name)
    expect([await socket.next(), await socket.ask()]).toEqual(['ann', 'ann'])

    await site.signOut(cookie)

    expect(await socket.ask()).toBe('nobody')
    await socket.close()
  })

  it('keeps users through new secrets of Channelkit, and ends them with one of Better Auth', async () => {
    const tables = newTables()
    const later = 'the secret that comes after, 40 letters.'
    let cookie = ''
    {
      await using site = await siteOf(silent(tables, {}))
      cookie = await site.signUp(ann)
    }

    {
      await using site = await siteOf(silent(tables, {}), [later, secret])
      const socket = site.open(cookie)
      expect([await socket.next(), await socket.ask()]).toEqual(['ann', 'ann'])
      await socket.close()
    }
    await using site = await siteOf(silent(tables, { secret: later }))
    const socket = site.open(cookie)

    expect([await socket.next(), await site.who(cookie)]).toEqual(['nobody', 'nobody'])
    await socket.close()
  })

  it('is refused without a database', () => {
    const stateless = betterAuth({ secret, logger: { disabled: true } })

    expect(() => betterAuthUser(stateless)).toThrow(/live in the cookie alone/)
  })
})
