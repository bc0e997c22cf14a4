import {
  Channel,
  channelSession,
  httpSession,
  issueTicket,
  type Session,
  sessionKeys,
} from 'channelkit'
import { signCookie } from 'channelkit/sessions'
import { describe, expect, it } from 'vitest'
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
        if (message.httpSession) message.httpSession.visits = message.content.content
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

describe('?session_key=', () => {
  it('names the session in development, after the cookie', async () => {
    await using site = await openSessionSite({ 'websocket.connect': greet })
    await site.put('ann', { name: 'Ann' })
    await site.put('ben', { name: 'Ben' })

    const byKey = await site.connect('/?session_key=ann')
    const byBoth = await site.connect('/?session_key=ann', 'ben')

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
      await site.put('ann', { name: 'Ann' })

      const socket = await site.connect('/?session_key=ann')

      expect(await socket.next()).toBe(allowSessionKeyInUrl ? 'hello Ann' : 'nobody')
    }
  })

  it('never makes a session under the key that the client chose', async () => {
    await using site = await openSessionSite({
      'websocket.connect': httpSession((message) => {
        if (message.httpSession) message.httpSession.stolen = true
      }),
    })

    await site.connect('/?session_key=chosen')
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
    await site.put('VerySecretKey', { name: 'Ann' })
    const tickets: string[] = []

    for (let index = 0; index < 50; index++) {
      const ticket = await issueTicket('VerySecretKey', { origin: 'http://localhost' })
      tickets.push(ticket)
      await site.connect('/?session_key=VerySecretKey', 'VerySecretKey')
      await site.connect(`/?ticket=${ticket}`)
    }
    await site.test.drain()
    for (let index = 0; index < 100; index++) await site.test.expectError('a failing consumer')

    const log = JSON.stringify(site.test.log, (_, value) =>
      value instanceof Error ? `${value.stack}` : value,
    )
    expect(log).not.toContain('VerySecretKey')
    for (const ticket of tickets) expect(log).not.toContain(ticket)
  })
})
