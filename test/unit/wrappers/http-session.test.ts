import {
  Channel,
  channelSession,
  httpSession,
  issueTicket,
  type Session,
  sessionKeys,
} from 'channelkit'
import { signCookie } from 'channelkit/sessions'
import { MemoryStore } from 'express-session'
import { describe, expect, it } from 'vitest'
import { readSession, writeSession } from '../../../src/sessions/session-store.ts'
import { openSessionSite, secret } from '../../support/session-site.ts'

const told = (session: Session | null) => ({
  content: session ? `hello ${session.name}` : 'nobody',
})

const greet = httpSession(async (message) => {
  await message.replyChannel.send(told(message.httpSession))
})

describe('httpSession', () => {
  it('finds the session that the cookie names and signs', async () => {
    await using site = await openSessionSite({ 'websocket.connect': greet })
    await site.put('sid', { name: 'Ann' })

    const ann = await site.connect('/', 'sid')

    expect(await ann.next()).toBe('hello Ann')
  })

  it.each([
    ['without a cookie', {}],
    ['with an unsigned one', { 'connect.sid': 'sid' }],
    ['with a forged one', { 'connect.sid': signCookie('sid', ['another secret']) }],
    ['with one of a session that ended', { 'connect.sid': signCookie('gone', [secret]) }],
    ['with one that names a channel session', { 'connect.sid': signCookie('channel-x', [secret]) }],
  ])('is null %s, and makes none', async (_, cookies) => {
    await using site = await openSessionSite({ 'websocket.connect': greet })
    await site.put('sid', { name: 'Ann' })

    const socket = await site.connect('/', undefined, { cookies })

    expect(await socket.next()).toBe('nobody')
    expect(Object.keys(await site.all())).toEqual(['sid'])
  })

  it('takes cookies that an older secret has signed', async () => {
    await using site = await openSessionSite(
      { 'websocket.connect': greet },
      { session: { secret: ['new', secret] } },
    )
    await site.put('sid', { name: 'Ann' })

    const ann = await site.connect('/', 'sid')

    expect(await ann.next()).toBe('hello Ann')
  })

  it('saves what the consumer changed, when it succeeds', async () => {
    await using site = await openSessionSite({
      'websocket.receive': httpSession((message) => {
        if (message.httpSession) message.httpSession.visits = String(message.content.content)
        if (message.content.content === '2') throw new Error('second visit')
      }),
      'websocket.connect': greet,
    })
    await site.put('sid', { name: 'Ann' })
    const ann = await site.connect('/', 'sid')
    await ann.next()

    ann.send('1')
    await site.test.drain()
    ann.send('2')
    await site.test.drain()

    expect(await site.read('sid')).toMatchObject({ name: 'Ann', visits: '1' })
    await site.test.expectError('second visit')
  })

  it('does not bring back a session that ended meanwhile', async () => {
    await using site = await openSessionSite({
      'websocket.connect': httpSession(async (message) => {
        if (message.httpSession) message.httpSession.visits = 1
        site.store.destroy('sid')
      }),
    })
    await site.put('sid', { name: 'Ann' })

    await site.connect('/', 'sid')
    await site.test.drain()

    expect(await site.read('sid')).toBeUndefined()
  })

  it.each([
    ['alone', httpSession(async () => {}), greet],
    [
      'inside channelSession',
      channelSession(httpSession(async () => {})),
      channelSession(
        httpSession((message) => message.replyChannel.send(told(message.httpSession))),
      ),
    ],
    [
      'around channelSession',
      httpSession(channelSession(async () => {})),
      httpSession(
        channelSession((message) => message.replyChannel.send(told(message.httpSession))),
      ),
    ],
  ])('is found again by later messages, %s', async (_, connect, receive) => {
    await using site = await openSessionSite({
      'websocket.connect': connect,
      'websocket.receive': receive,
    })
    await site.put('sid', { name: 'Ann' })
    const ann = await site.connect('/', 'sid')

    ann.send('?')

    expect(await ann.next()).toBe('hello Ann')
  })

  it('is not among what consumers see in the channel session', async () => {
    await using site = await openSessionSite({
      'websocket.connect': channelSession(
        httpSession((message) =>
          message.replyChannel.send({ content: JSON.stringify(message.channelSession) }),
        ),
      ),
    })
    await site.put('sid', { name: 'Ann' })

    const ann = await site.connect('/', 'sid')

    expect(await ann.next()).toBe('{}')
  })

  it('reaches a consumer of another channel that is sent the keys', async () => {
    await using site = await openSessionSite({
      'websocket.connect': httpSession((message) =>
        Channel('orders').send({ ...sessionKeys(message), item: 'tea' }),
      ),
      orders: greet,
    })
    await site.put('sid', { name: 'Ann' })

    const ann = await site.connect('/', 'sid')

    expect(await ann.next()).toBe('hello Ann')
  })

  it('takes no key out of content that nobody passed on', async () => {
    await using site = await openSessionSite({
      'websocket.connect': (message) =>
        Channel('orders').send({ reply_channel: message.replyChannel.name, http_session: 'sid' }),
      orders: greet,
    })
    await site.put('sid', { name: 'Ann' })

    const eve = await site.connect('/')

    expect(await eve.next()).toBe('nobody')
  })
})

describe('a session in use on a socket', () => {
  it('is touched by what the client sends, once a minute at most, and by nothing else', async () => {
    const touched: unknown[] = []
    class TouchedStore extends MemoryStore {
      override touch(...[sid, session, done]: Parameters<MemoryStore['touch']>): void {
        touched.push([
          sid,
          new Date(session.cookie.expires ?? 0).getTime() - Date.now() > 3_500_000,
        ])
        super.touch(sid, session, done)
      }
    }
    const store = new TouchedStore()
    const maxAge = 3_600_000
    const expires = new Date(Date.now() + 60_000)
    await writeSession(store, 'sid', { name: 'Ann', cookie: { originalMaxAge: maxAge, expires } })
    await using site = await openSessionSite(
      { 'websocket.connect': greet, 'websocket.receive': greet },
      { session: { store } },
    )
    const ann = await site.connect('/', 'sid')
    await ann.next()
    expect(touched).toEqual([])

    for (let index = 0; index < 3; index++) {
      ann.send('?')
      await ann.next()
    }

    expect(touched).toEqual([['sid', true]])
    const kept = await readSession(store, 'sid')
    expect(new Date(kept?.cookie?.expires ?? 0).getTime()).toBeGreaterThan(Date.now() + 3_500_000)
  })

  it('goes on when it cannot be touched, and that is logged', async () => {
    class FailingStore extends MemoryStore {
      override touch(...[_sid, _session, done]: Parameters<MemoryStore['touch']>): void {
        ;(done as ((error: unknown) => void) | undefined)?.(new Error('read only'))
      }
    }
    const store = new FailingStore()
    await writeSession(store, 'sid', { name: 'Ann', cookie: { originalMaxAge: null } })
    await using site = await openSessionSite(
      { 'websocket.connect': greet, 'websocket.receive': greet },
      { session: { store } },
    )
    const ann = await site.connect('/', 'sid')

    ann.send('?')

    expect([await ann.next(), await ann.next()]).toEqual(['hello Ann', 'hello Ann'])
    const warnings = site.test.log.filter(({ level }) => level === 'warn')
    expect(warnings).toMatchObject([{ message: expect.stringContaining('touched') }])
  })
})

describe('?session_key=', () => {
  it('names the session in development, after the cookie', async () => {
    await using site = await openSessionSite({ 'websocket.connect': greet })
    await site.put('key-of-ann-is-it', { name: 'Ann' })
    await site.put('ben', { name: 'Ben' })

    const byKey = await site.connect('/?session_key=key-of-ann-is-it')
    const byBoth = await site.connect('/?session_key=key-of-ann-is-it', 'ben')

    expect(await byKey.next()).toBe('hello Ann')
    expect(await byBoth.next()).toBe('hello Ben')
  })

  it('is passed over in production, unless the config allows it', async () => {
    const strong = 'a3f9c1d27be84560a3f9c1d27be84560'
    for (const allowSessionKeyInUrl of [undefined, true]) {
      await using site = await openSessionSite(
        { 'websocket.connect': greet },
        {
          mode: 'production',
          session: {
            secret: strong,
            ...(allowSessionKeyInUrl && { allowSessionKeyInUrl }),
          },
        },
      )
      await site.put('key-of-ann-is-it', { name: 'Ann' })

      const socket = await site.connect('/?session_key=key-of-ann-is-it')

      expect(await socket.next()).toBe(allowSessionKeyInUrl ? 'hello Ann' : 'nobody')
    }
  })

  it.each(['../../package', 'a%2Fb%2Fc%2Fd%2Fe%2Ff%2Fg%2Fh', 'short', 'x'.repeat(129)])(
    'asks the store for no key of the form %s',
    async (key) => {
      await using site = await openSessionSite({ 'websocket.connect': greet })
      await site.put(decodeURIComponent(key), { name: 'Ann' })

      const socket = await site.connect(`/?session_key=${key}`)

      expect(await socket.next()).toBe('nobody')
    },
  )

  it('takes nothing for a session that no session library has made', async () => {
    await using site = await openSessionSite({ 'websocket.connect': greet })
    await writeSession(site.store, 'some-other-thing', { name: 'channelkit' })

    const socket = await site.connect('/?session_key=some-other-thing')

    expect(await socket.next()).toBe('nobody')
  })

  it('never makes a session under the key that the client chose', async () => {
    await using site = await openSessionSite({
      'websocket.connect': httpSession((message) => {
        if (message.httpSession) message.httpSession.stolen = true
      }),
    })

    await site.connect('/?session_key=chosen-by-a-client')
    await site.test.drain()

    expect(await site.all()).toEqual({})
  })
})

describe('issueTicket', () => {
  it('lets one socket of its origin in, once, and is gone from the content', async () => {
    const contents: unknown[] = []
    await using site = await openSessionSite({
      'websocket.connect': httpSession((message) => {
        contents.push(message.content)
        return message.replyChannel.send(told(message.httpSession))
      }),
    })
    await site.put('sid', { name: 'Ann' })
    const ticket = await issueTicket('sid', { origin: 'http://localhost' })

    const first = await site.connect(`/?room=a&ticket=${ticket}`)
    const second = await site.connect(`/?ticket=${ticket}`)

    expect(await first.next()).toBe('hello Ann')
    expect(await second.next()).toBe('nobody')
    expect(contents[0]).toMatchObject({ query_string: 'room=a', get: { room: ['a'] } })
    expect(JSON.stringify(contents)).not.toContain(ticket)
  })

  it('is used up beside a cookie as well', async () => {
    await using site = await openSessionSite({ 'websocket.connect': greet })
    await site.put('ann', { name: 'Ann' })
    await site.put('ben', { name: 'Ben' })
    const ticket = await issueTicket('ann', { origin: 'http://localhost' })

    const first = await site.connect(`/?ticket=${ticket}`, 'ben')
    const second = await site.connect(`/?ticket=${ticket}`)

    expect(await first.next()).toBe('hello Ben')
    expect(await second.next()).toBe('nobody')
  })

  it('leaves a parameter of the site that has its name', async () => {
    const contents: { query_string?: string; get?: object }[] = []
    await using site = await openSessionSite({
      'websocket.connect': httpSession((message) => {
        contents.push(message.content)
        return message.replyChannel.send(told(message.httpSession))
      }),
    })
    await site.put('sid', { name: 'Ann' })
    const ticket = await issueTicket('sid', { origin: 'http://localhost' })

    const socket = await site.connect(`/?ticket=4711&ticket=${ticket}&q=a%20b&r=%7E`)

    expect(await socket.next()).toBe('hello Ann')
    expect(contents[0]).toMatchObject({
      query_string: 'ticket=4711&q=a%20b&r=%7E',
      get: { ticket: ['4711'], q: ['a b'], r: ['~'] },
    })
  })

  it.each([
    [
      'node:http',
      { cookie: `a=1; connect.sid=${encodeURIComponent(signCookie('sid', [secret]))}` },
    ],
    ['fetch', new Headers({ cookie: `connect.sid=${signCookie('sid', [secret])}` })],
  ])('takes the session of a request of %s', async (_, headers) => {
    await using site = await openSessionSite({ 'websocket.connect': greet })
    await site.put('sid', { name: 'Ann' })

    const ticket = await issueTicket({ headers }, { origin: 'http://localhost' })
    const socket = await site.connect(`/?ticket=${ticket}`)

    expect(await socket.next()).toBe('hello Ann')
  })

  it('refuses a request without a cookie of the site', async () => {
    await using _site = await openSessionSite({ 'websocket.connect': greet })

    const refused = issueTicket({ headers: {} }, { origin: 'http://localhost' })

    await expect(refused).rejects.toThrow('a request without a session cookie')
  })

  it.each([
    ['another origin', 'https://evil.example', 0],
    ['a later time', 'http://localhost', 30_000],
  ])('is no good from %s', async (_, origin, laterMs) => {
    await using site = await openSessionSite({ 'websocket.connect': greet })
    await site.put('sid', { name: 'Ann' })
    const ticket = await issueTicket({ id: 'sid' }, { origin })

    await site.test.advance(laterMs)
    const socket = await site.connect(`/?ticket=${ticket}`)

    expect(await socket.next()).toBe('nobody')
  })

  it('is no good with any character changed', async () => {
    await using site = await openSessionSite({ 'websocket.connect': greet })
    await site.put('sid', { name: 'Ann' })
    const ticket = await issueTicket('sid', { origin: 'http://localhost' })

    for (const index of [0, 21, 22, 23, ticket.length - 1]) {
      const other = ticket[index] === 'A' ? 'B' : 'A'
      const forged = ticket.slice(0, index) + other + ticket.slice(index + 1)
      const socket = await site.connect(`/?ticket=${forged}`)
      expect(await socket.next()).toBe('nobody')
    }
    const honest = await site.connect(`/?ticket=${ticket}`)
    expect(await honest.next()).toBe('hello Ann')
  })

  it.each([
    ['', { origin: 'https://a.example' }, 'for the session ""'],
    ['sid', { origin: 'a.example' }, 'for the origin "a.example"'],
    ['sid', { origin: 'https://a.example', expiryMs: 0 }, 'good for 0 ms'],
  ])('refuses %j with %j', async (session, options, message) => {
    await using _site = await openSessionSite({ 'websocket.connect': greet })

    await expect(issueTicket(session, options)).rejects.toThrow(message)
  })
})

describe('the log', () => {
  it('shows no session key and no ticket of 100 requests, though consumers fail', async () => {
    await using site = await openSessionSite({
      'websocket.connect': httpSession(() => {
        throw new Error('a failing consumer')
      }),
      'http.request': httpSession(() => {
        throw new Error('a failing view')
      }),
    })
    await site.put('VerySecretSessionKey', { name: 'Ann' })
    const tickets: string[] = []

    for (let index = 0; index < 50; index++) {
      const ticket = await issueTicket('VerySecretSessionKey', { origin: 'http://localhost' })
      tickets.push(ticket)
      await site.connect('/?session_key=VerySecretSessionKey', 'VerySecretSessionKey')
      await site.connect(`/?ticket=${ticket}`)
    }
    await site.test.drain()
    for (let index = 0; index < 100; index++) await site.test.expectError('a failing consumer')

    const log = JSON.stringify(site.test.log, (_, value) =>
      value instanceof Error ? `${value.stack}` : value,
    )
    expect(log).not.toContain('VerySecretSessionKey')
    for (const ticket of tickets) expect(log).not.toContain(ticket)
  })
})
