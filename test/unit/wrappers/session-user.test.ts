import {
  Channel,
  channelSession,
  channelSessionUser,
  type DisconnectOptions,
  disconnectUser,
  httpSession,
  httpSessionUser,
  logOut,
  type Message,
  type Session,
  type SessionWithUser,
  sessionKeys,
  setup,
  transferUser,
  type User,
  type WithChannelSession,
  type WithHttpSessionUser,
} from 'channelkit'
import { MemoryBackend } from 'channelkit/memory'
import { type Auth, betterAuthUser, passportUser, signCookie } from 'channelkit/sessions'
import { MemoryStore } from 'express-session'
import { Passport } from 'passport'
import { describe, expect, it } from 'vitest'
import { setCurrentSite } from '../../../src/current-site.ts'
import { ReceivedMessage } from '../../../src/message.ts'
import { openSessionSite } from '../../support/session-site.ts'

interface Account {
  id: number
  username: string
  password: string
}

const nameOf = (user: User | null) => ({ content: user ? String(user.username) : 'nobody' })

const enter = channelSession(
  httpSessionUser(async (message: Message & WithChannelSession & WithHttpSessionUser) => {
    transferUser(message.httpSession, message.channelSession)
    await message.replyChannel.send(nameOf(message.user))
  }),
)

const say = channelSessionUser((message) => message.replyChannel.send(nameOf(message.user)))

const chat = { 'websocket.connect': enter, 'websocket.receive': say }

/** Accounts, and how a site finds them by what its sessions hold. */
function newAccounts() {
  const accounts: Account[] = [
    { id: 1, username: 'ann', password: 'hash of apple' },
    { id: 2, username: 'ben', password: 'hash of banana' },
  ]
  const auth: Auth = {
    user: (session) => find(session.userId) ?? null,
    hash: (user) => String(user.password),
  }
  const find = (id: unknown) => {
    const account = accounts.find((each) => each.id === id)
    return account && { ...account }
  }
  return { accounts, auth, find }
}

describe('message.user', () => {
  it('is who is signed in on the site, for the handshake and for what follows', async () => {
    const { auth } = newAccounts()
    await using site = await openSessionSite(chat, { auth })
    await site.put('a', { userId: 1 })
    await site.put('b', { userId: 2 })
    const ann = await site.connect('/', 'a')
    const ben = await site.connect('/', 'b')

    ann.send('?')
    ben.send('?')

    expect([await ann.next(), await ann.next()]).toEqual(['ann', 'ann'])
    expect([await ben.next(), await ben.next()]).toEqual(['ben', 'ben'])
  })

  it.each([
    ['no session', undefined],
    ['an anonymous session', 'anonymous'],
    ['a session of a user who is gone', 'gone'],
  ])('is null with %s, and then nothing is transferred', async (_, sid) => {
    const { auth } = newAccounts()
    await using site = await openSessionSite(chat, { auth })
    await site.put('anonymous', { cart: ['tea'] })
    await site.put('gone', { userId: 99 })
    const socket = await site.connect('/', sid)

    socket.send('?')

    expect([await socket.next(), await socket.next()]).toEqual(['nobody', 'nobody'])
    expect(JSON.stringify(await site.all())).not.toContain('channelkit:user')
  })

  it('is fresh on each message', async () => {
    const { auth, accounts } = newAccounts()
    await using site = await openSessionSite(chat, { auth })
    await site.put('a', { userId: 1 })
    const ann = await site.connect('/', 'a')
    await ann.next()

    if (accounts[0]) accounts[0].username = 'anna'
    ann.send('?')

    expect(await ann.next()).toBe('anna')
  })

  it.each([
    ['their session ends', (site: Site, _: Account[]) => site.endElsewhere('a')],
    ['someone else signs in by it', (site: Site) => site.put('a', { userId: 2 })],
    ['they sign out in it', (site: Site) => site.put('a', {})],
    [
      'their password changes',
      (_: Site, accounts: Account[]) => {
        if (accounts[0]) accounts[0].password = 'hash of cherry'
      },
    ],
    ['they are deleted', (_: Site, accounts: Account[]) => void accounts.shift()],
  ])('is null for good once %s', async (_, change) => {
    const { auth, accounts } = newAccounts()
    const kept = accounts.map((account) => ({ ...account }))
    await using site = await openSessionSite(chat, { auth })
    await site.put('a', { userId: 1 })
    const ann = await site.connect('/', 'a')
    await ann.next()

    await change(site, accounts)
    ann.send('?')
    expect(await ann.next()).toBe('nobody')

    accounts.splice(0, accounts.length, ...kept)
    await site.put('a', { userId: 1 })
    ann.send('?')
    expect(await ann.next()).toBe('nobody')
  })

  it('is nobody where nobody was transferred, whatever a consumer keeps in the session', async () => {
    const { auth } = newAccounts()
    await using site = await openSessionSite(
      {
        'websocket.connect': channelSession((message) => {
          message.channelSession.userId = 2
        }),
        'websocket.receive': say,
      },
      { auth },
    )
    const eve = await site.connect('/')

    eve.send('?')

    expect(await eve.next()).toBe('nobody')
  })

  it.each([undefined, null, false, 0, ''])('is null where auth gives %j', async (given) => {
    const auth = { user: () => given } as Auth
    await using site = await openSessionSite(chat, { auth })
    await site.put('a', {})

    const socket = await site.connect('/', 'a')

    expect(await socket.next()).toBe('nobody')
  })

  it('may have no hash, as an account without password', async () => {
    const auth: Auth = { user: () => ({ id: 1, username: 'ann' }), hash: () => null }
    await using site = await openSessionSite(chat, { auth })
    await site.put('a', {})
    const ann = await site.connect('/', 'a')

    ann.send('?')

    expect([await ann.next(), await ann.next()]).toEqual(['ann', 'ann'])
  })

  it.each([
    ['a user that is a text', { user: () => 'ann' }, 'auth.user gives "ann"'],
    [
      'a hash that is a number',
      { user: () => ({ id: 1 }), hash: () => 3 },
      'auth.hash gives a num',
    ],
    ['a user without id', { user: () => ({ name: 'ann' }) }, 'has the id undefined'],
    ['an id that is none', { user: () => ({ id: 1 }), id: () => undefined }, 'auth.id gives undef'],
  ])('refuses %s', async (_, auth, text) => {
    await using site = await openSessionSite(chat, { auth: auth as unknown as Auth })
    await site.put('a', {})

    await site.connect('/', 'a')

    expect(await site.test.expectError(text)).toMatchObject({ code: 'ERR_INVALID_CONFIG' })
  })

  it('is null when they sign out during the handshake, and no sign-out was missed', async () => {
    const { auth } = newAccounts()
    let looked = 0
    const slow: Auth = {
      ...auth,
      async user(session) {
        const found = await auth.user(session)
        looked++
        if (looked === 1) {
          site.endElsewhere('a')
          await disconnectUser(1)
        }
        return found
      },
    }
    const sessions: (Session | null)[] = []
    await using site = await openSessionSite(
      {
        'websocket.connect': httpSessionUser(async (message) => {
          sessions.push(message.httpSession)
          await message.replyChannel.send(nameOf(message.user))
        }),
      },
      { auth: slow },
    )
    await site.put('a', { userId: 1 })

    const ann = await site.connect('/', 'a')

    expect(await ann.next()).toBe('nobody')
    expect(sessions).toEqual([null])
  })

  it('reaches a consumer of another channel that is sent the keys', async () => {
    const { auth } = newAccounts()
    await using site = await openSessionSite(
      {
        'websocket.connect': httpSessionUser((message) =>
          Channel('orders').send({ ...sessionKeys(message) }),
        ),
        orders: httpSessionUser((message) => message.replyChannel.send(nameOf(message.user))),
      },
      { auth },
    )
    await site.put('a', { userId: 1 })

    const ann = await site.connect('/', 'a')

    expect(await ann.next()).toBe('ann')
  })

  it('is each client their own among 200 at once', async () => {
    const auth: Auth = {
      user: async (session) => {
        await new Promise(setImmediate)
        return { id: Number(session.userId), username: `user ${session.userId}` }
      },
    }
    await using site = await openSessionSite(chat, { auth })
    const sockets = await Promise.all(
      Array.from({ length: 200 }, async (_, id) => {
        await site.put(`sid${id}`, { userId: id })
        return site.connect('/', `sid${id}`)
      }),
    )
    for (const socket of sockets) for (let turn = 0; turn < 3; turn++) socket.send('?')

    for (const [id, socket] of sockets.entries()) {
      for (let turn = 0; turn < 4; turn++) expect(await socket.next()).toBe(`user ${id}`)
    }
  })

  it('needs auth in the config', async () => {
    await using site = await openSessionSite(chat)
    await site.put('a', { userId: 1 })

    await site.connect('/', 'a')

    expect(await site.test.expectError('auth')).toMatchObject({ code: 'ERR_NOT_CONFIGURED' })
  })
})

type Site = Awaited<ReturnType<typeof openSessionSite>>

describe('transferUser', () => {
  it('rejects a session whose user was not asked for', async () => {
    await using site = await openSessionSite(
      {
        'websocket.connect': channelSession(
          httpSession((message) => {
            const { httpSession: session, channelSession: kept } = message
            transferUser(session as SessionWithUser | null, kept)
          }),
        ),
      },
      { auth: newAccounts().auth },
    )
    await site.put('a', { userId: 1 })

    await site.connect('/', 'a')

    const error = await site.test.expectError('httpSessionUser instead of httpSession')
    expect(error).toMatchObject({ code: 'ERR_WRAPPER_MISUSE' })
  })

  it('keeps no password and no hash of one that is known', async () => {
    const { auth } = newAccounts()
    await using site = await openSessionSite(chat, { auth })
    await site.put('a', { userId: 1 })

    await site.connect('/', 'a')

    expect(JSON.stringify(await site.all())).not.toContain('apple')
  })
})

describe('disconnectUser', () => {
  it('closes every socket of the user, and no other', async () => {
    const { auth } = newAccounts()
    await using site = await openSessionSite(chat, { auth })
    await site.put('a', { userId: 1 })
    await site.put('a2', { userId: 1 })
    await site.put('b', { userId: 2 })
    const [phone, desk] = [await site.connect('/', 'a'), await site.connect('/', 'a2')]
    const ben = await site.connect('/', 'b')
    for (const socket of [phone, desk, ben]) await socket.next()

    await disconnectUser(1)

    expect(await phone.expectClosed()).toEqual({ code: 4001, reason: 'signed out' })
    expect(await desk.expectClosed()).toEqual({ code: 4001, reason: 'signed out' })
    expect(ben.closed).toBeUndefined()
  })

  it('still finds a socket that was quiet for an hour', async () => {
    const { auth } = newAccounts()
    await using site = await openSessionSite(chat, { auth })
    await site.put('a', { userId: 1 })
    const ann = await site.connect('/', 'a')
    await ann.next()

    await site.test.advance(3_600_000)
    await disconnectUser('1', { code: 4003, reason: 'banned' })

    expect(await ann.expectClosed()).toEqual({ code: 4003, reason: 'banned' })
  })

  it('closes the sockets of a session that the site ends, and no other of the user', async () => {
    const { auth } = newAccounts()
    await using site = await openSessionSite(chat, { auth })
    await site.put('a', { userId: 1 })
    await site.put('a2', { userId: 1 })
    const [phone, desk] = [await site.connect('/', 'a'), await site.connect('/', 'a2')]
    for (const socket of [phone, desk]) await socket.next()

    site.store.destroy('a')

    expect(await phone.expectClosed()).toEqual({ code: 4001, reason: 'signed out' })
    expect(desk.closed).toBeUndefined()
  })

  it.each([
    [{}, [1, 1]],
    [{ backend: 'games' }, [0, 1]],
  ] as const)('reaches the backends that %j asks for', async (options, counts) => {
    const [main, games] = [new MemoryBackend(), new MemoryBackend()]
    const backends = { default: { backend: main }, games: { backend: games } }
    const session = { store: new MemoryStore(), secret: 'a secret' }
    const site = await setup({ channelBackends: backends, session, auth: () => ({ id: 1 }) })
    await session.store.set('a', { cookie: {} } as never)
    const cookies = { 'connect.sid': signCookie('a', ['a secret']) }
    const inboxes = await Promise.all(
      [main, games].map(async (backend) => {
        const inbox = await backend.openInbox()
        const content = { reply_channel: inbox.newChannel('client'), cookies, get: {} }
        const incoming = { id: '1', channel: 'websocket.connect', content, attempts: 0 }
        const consumer = httpSessionUser(() => {})
        await consumer(new ReceivedMessage({ ...incoming, expiresAt: 0 }, backend))
        return inbox
      }),
    )

    await disconnectUser(1, options)

    const received = inboxes.map((inbox) => inbox.receive({ max: 5, waitMs: 0 }))
    expect((await Promise.all(received)).map(({ length }) => length)).toEqual(counts)
    await site.close()
    setCurrentSite(undefined)
  })

  it('misses no socket that is given a user while their session ends', async () => {
    const { auth } = newAccounts()
    await using site = await openSessionSite(
      {
        'websocket.connect': httpSession(() => {}),
        'websocket.receive': channelSession(
          httpSessionUser((message) => {
            transferUser(message.httpSession, message.channelSession)
            site.endElsewhere('a')
            return disconnectUser(1)
          }),
        ),
      },
      { auth },
    )
    await site.put('a', { userId: 1 })
    const ann = await site.connect('/', 'a')

    ann.send('?')

    expect(await ann.expectClosed()).toEqual({ code: 4001, reason: 'signed out' })
  })

  it('does not reach a socket that was transferred to someone else', async () => {
    const { auth } = newAccounts()
    await using site = await openSessionSite(
      { 'websocket.connect': enter, 'websocket.receive': enter },
      { auth },
    )
    await site.put('a', { userId: 1 })
    const socket = await site.connect('/', 'a')
    await site.put('a', { userId: 2 })
    socket.send('?')
    expect([await socket.next(), await socket.next()]).toEqual(['ann', 'ben'])
    await site.test.drain()

    await disconnectUser(1)
    await site.test.drain()
    expect(socket.closed).toBeUndefined()

    await disconnectUser(2)
    expect((await socket.expectClosed()).code).toBe(4001)
  })

  it.each([
    [undefined, {}, 'the id undefined'],
    [null, {}, 'the id null'],
    [Number.NaN, {}, 'the id NaN'],
    ['', {}, 'the id ""'],
    [{}, {}, 'the id [object Object]'],
    [1, { code: 99_999 }, 'the code 99999'],
    [1, { code: 1001 }, 'the code 1001'],
    [1, { code: 'x' }, 'the code "x"'],
    [1, { reason: 'a'.repeat(124) }, 'at most 123 bytes'],
  ])('refuses %j with %j', async (id, options, text) => {
    await using _site = await openSessionSite(chat, { auth: newAccounts().auth })

    const refused = disconnectUser(id as number, options as DisconnectOptions)

    await expect(refused).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' })
    await expect(refused).rejects.toThrow(text)
  })
})

describe('logOut', () => {
  it('closes the sockets of who is signed in by a plain session, before it ends', async () => {
    const { auth } = newAccounts()
    await using site = await openSessionSite(chat, { auth })
    await site.put('a', { userId: 1 })
    await site.put('a2', { userId: 1 })
    const [phone, desk] = [await site.connect('/', 'a'), await site.connect('/', 'a2')]
    for (const socket of [phone, desk]) await socket.next()
    const destroy = (done: (error?: unknown) => void) => site.store.destroy('a', done)

    await logOut({ session: { id: 'a', userId: 1, destroy } as never })

    expect(await site.read('a')).toBeUndefined()
    expect((await phone.expectClosed()).code).toBe(4001)
    expect((await desk.expectClosed()).code).toBe(4001)
  })

  it('ends the session even when it cannot be told whose it is, and says so', async () => {
    const auth: Auth = {
      user: () => {
        throw new Error('users are away')
      },
    }
    await using site = await openSessionSite(chat, { auth })
    await site.put('a', { userId: 1 })
    const destroy = (done: (error?: unknown) => void) => site.store.destroy('a', done)

    await expect(logOut({ session: { id: 'a', destroy } })).rejects.toThrow('users are away')

    expect(await site.read('a')).toBeUndefined()
  })

  it('signs out by Passport and closes the sockets of the user', async () => {
    const { auth, find } = newAccounts()
    await using site = await openSessionSite(chat, { auth })
    await site.put('a', { userId: 1 })
    const ann = await site.connect('/', 'a')
    await ann.next()
    const calls: string[] = []

    await logOut({
      user: find(1),
      logout: (done) => {
        calls.push('logout')
        done()
      },
    })

    expect(calls).toEqual(['logout'])
    expect((await ann.expectClosed()).code).toBe(4001)
  })

  it('ends the session where there is no Passport', async () => {
    await using site = await openSessionSite(chat, { auth: newAccounts().auth })
    await site.put('a', { userId: 1 })

    await logOut({ session: { destroy: (done) => site.store.destroy('a', done) } })

    expect(await site.read('a')).toBeUndefined()
  })

  it('passes on why signing out failed', async () => {
    await using _site = await openSessionSite(chat, { auth: newAccounts().auth })
    const failing = { logout: (done: (error: Error) => void) => done(new Error('store is away')) }

    await expect(logOut(failing)).rejects.toThrow('store is away')
  })
})

describe('passportUser', () => {
  type Done = (error: unknown, user?: Express.User | false | null) => void

  it.each([
    ['two arguments', (id: number, done: Done) => done(null, newAccounts().find(id) ?? false)],
    [
      'the request',
      (_request: object, id: number, done: Done) => done(null, newAccounts().find(id) ?? false),
    ],
  ])('asks deserializers that take %s', async (_, deserializer) => {
    const passport = new Passport()
    passport.deserializeUser(deserializer as (id: number, done: Done) => void)
    await using site = await openSessionSite(chat, { auth: passportUser(passport) })
    await site.put('a', { passport: { user: 1 } })
    await site.put('gone', { passport: { user: 9 } })

    const ann = await site.connect('/', 'a')
    const gone = await site.connect('/', 'gone')

    expect(await ann.next()).toBe('ann')
    expect(await gone.next()).toBe('nobody')
  })

  it('passes on what a deserializer fails with', async () => {
    const passport = new Passport()
    passport.deserializeUser((_id, done) => done(new Error('users are away')))
    await using site = await openSessionSite(chat, { auth: passportUser(passport) })
    await site.put('a', { passport: { user: 0 } })

    await site.connect('/', 'a')

    expect((await site.test.expectError('users are away')).message).toBe('users are away')
  })
})

describe('betterAuthUser', () => {
  const better = {
    api: {
      getSession: async ({ headers }: { headers: Headers }) =>
        headers.get('cookie') === '__Secure-better-auth.session_token=token.sig%2B%3D'
          ? { session: { id: 's1' }, user: { id: 'u1', username: 'ann' } }
          : null,
    },
  }

  it('finds the user by the cookie, and again for later messages', async () => {
    await using site = await openSessionSite(chat, { auth: betterAuthUser(better) })
    const cookies = { '__Secure-better-auth.session_token': 'token.sig+=' }
    const ann = await site.connect('/', undefined, { cookies })
    const eve = await site.connect('/', undefined, {
      cookies: { 'better-auth.session_token': 'token.forged' },
    })

    ann.send('?')

    expect([await ann.next(), await ann.next()]).toEqual(['ann', 'ann'])
    expect(await eve.next()).toBe('nobody')
  })

  it('takes nobody for signed in by what a consumer put into the channel session', async () => {
    await using site = await openSessionSite(
      {
        'websocket.connect': channelSession((message) => {
          message.channelSession.user = { id: 'u1', username: 'ann' }
        }),
        'websocket.receive': say,
      },
      { auth: betterAuthUser(better) },
    )
    const eve = await site.connect('/')

    eve.send('?')

    expect(await eve.next()).toBe('nobody')
  })

  it('does not let the session be changed', async () => {
    await using site = await openSessionSite(
      {
        'websocket.connect': httpSession((message) => {
          if (message.httpSession) message.httpSession.cart = ['tea']
        }),
      },
      { auth: betterAuthUser(better) },
    )

    await site.connect('/', undefined, {
      cookies: { '__Secure-better-auth.session_token': 'token.sig+=' },
    })

    expect(await site.test.expectError('cart')).toMatchObject({ code: 'ERR_NOT_SUPPORTED' })
  })
})
