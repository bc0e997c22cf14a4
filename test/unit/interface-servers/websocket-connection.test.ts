import { Channel, defineRouting, Group, type Message, type WebSocketReply } from 'channelkit'
import { TestSite, type TestSiteConfig, type TestSiteOptions } from 'channelkit/testing'
import { describe, expect, it } from 'vitest'
import { resolveWebSocketSettings } from '../../../src/interface-servers/settings.ts'
import { deferred } from '../../support/deferred.ts'

/** A site that answers each message from a client with the replies that `replies` gives. */
function answering(
  replies: (content: string) => readonly WebSocketReply[],
  config: TestSiteConfig = {},
): Promise<TestSite> {
  const routing = defineRouting({
    'websocket.receive': async ({ content, replyChannel }) => {
      for (const reply of replies(String(content.content))) await replyChannel.send(reply)
    },
  })
  return TestSite.open({ routing, ...config })
}

/** A site without workers: what clients do waits, and the test answers. */
function silent(config: TestSiteConfig = {}, options: TestSiteOptions = {}): Promise<TestSite> {
  return TestSite.open(config, { workers: false, ...options })
}

async function only<Name extends string>(site: TestSite, channel: Name): Promise<Message<Name>> {
  const messages = await site.receive(channel)
  expect(messages).toHaveLength(1)
  return messages[0] as Message<Name>
}

const { maxMessageBytes } = resolveWebSocketSettings()

describe('WebSocketConnection', () => {
  it('tells of connect, each message and disconnect, on one reply channel', async () => {
    await using site = await silent()
    const socket = await site.connect('/caf%C3%A9?x=1')
    socket.send('héllo 🍳')
    socket.send(new Uint8Array([1, 2, 255]))
    socket.send('')
    await socket.close(4_000, 'done')

    const connect = await only(site, 'websocket.connect')
    const received = await site.receive('websocket.receive')
    const disconnect = await only(site, 'websocket.disconnect')

    const { reply_channel } = connect.content
    expect(reply_channel).toMatch(/^reply\.[\w-]{22}![\w-]{22}$/)
    expect(connect.content).toMatchObject({ path: '/café', scheme: 'ws', subprotocols: [] })
    const path = '/café'
    expect(received.map(({ content }) => content)).toEqual([
      { reply_channel, path, content: 'héllo 🍳' },
      { reply_channel, path, content: new Uint8Array([1, 2, 255]), binary: true },
      { reply_channel, path, content: '' },
    ])
    expect(disconnect.content).toEqual({ reply_channel, path, code: 4_000 })
  })

  it('gives consumers plain bytes, as every backend does', async () => {
    await using site = await silent()
    const socket = await site.connect('/')
    socket.send(new Uint8Array([1, 2]))

    const { content } = await only(site, 'websocket.receive')

    expect(Object.getPrototypeOf(content.content)).toBe(Uint8Array.prototype)
  })

  it('gives consumers bytes that share no memory with what else the client sent', async () => {
    await using site = await silent()
    const socket = await site.connect('/')
    socket.send('text before')
    socket.send(new Uint8Array([1, 2]))

    const [, second] = await site.receive('websocket.receive')

    const bytes = second?.content.content as Uint8Array
    expect([bytes.byteOffset, bytes.buffer.byteLength]).toEqual([0, 2])
  })

  it('gives each client a channel of its own', async () => {
    await using site = await answering((content) => [{ content: `you said ${content}` }])
    const [ann, ben] = [await site.connect('/'), await site.connect('/')]

    ann.send('a')
    ben.send('b')

    expect(await ann.next()).toBe('you said a')
    expect(await ben.next()).toBe('you said b')
    await ann.expectNothing()
  })

  it('sends replies in order, text as text and bytes as bytes', async () => {
    await using site = await answering(() => [
      { content: 'one' },
      { content: new Uint8Array([2]) },
      {},
      { content: 'three', binary: true },
      { content: '' },
    ])
    const socket = await site.connect('/')

    socket.send('x')

    expect(await socket.next()).toBe('one')
    expect(await socket.next()).toEqual(new Uint8Array([2]))
    expect(await socket.next()).toEqual(new TextEncoder().encode('three'))
    expect(await socket.next()).toBe('')
    await socket.expectNothing()
  })

  it.each([1_000, 100_000, 1_048_576])('carries messages of %i bytes both ways', async (size) => {
    const backend = { maxContentBytes: 4_194_304 }
    const routing = defineRouting({
      'websocket.receive': ({ content, replyChannel }) =>
        replyChannel.send({ content: content.content }),
    })
    const websocket = { maxMessageBytes: 1_048_576 }
    await using site = await TestSite.open({ routing, websocket }, { backend })
    const socket = await site.connect('/')

    socket.send('x'.repeat(size))

    expect(await socket.next()).toHaveLength(size)
  })

  it.each([
    ['plain text', 'x'.repeat(maxMessageBytes)],
    ['quotes', '"'.repeat(maxMessageBytes)],
    ['control characters', '\u0001'.repeat(maxMessageBytes)],
    ['line separators', '\u2028'.repeat(Math.floor(maxMessageBytes / 3))],
    ['bytes', new Uint8Array(maxMessageBytes)],
  ])('takes the largest message of %s on default settings', async (_, content) => {
    await using site = await silent()
    const socket = await site.connect(`/${'%01'.repeat(4_000)}`)

    socket.send(content)

    expect((await only(site, 'websocket.receive')).content.content).toEqual(content)
  })

  it('closes with 1009 on a message that is too large, which no consumer sees', async () => {
    await using site = await silent({ websocket: { maxMessageBytes: 100 } })
    const socket = await site.connect('/')
    socket.send('x'.repeat(100))
    socket.send('x'.repeat(101))

    expect(await socket.expectClosed()).toMatchObject({ code: 1009 })
    expect(await site.receive('websocket.receive')).toHaveLength(1)
    expect((await only(site, 'websocket.disconnect')).content.code).toBe(1009)
    expect(site.counters()['frames.WS_ERR_UNSUPPORTED_MESSAGE_LENGTH']).toBe(1)
  })

  it('closes with 1009 on a message that its backend would not take', async () => {
    await using site = await silent({}, { backend: { maxContentBytes: 1_000 } })
    const socket = await site.connect('/')
    await only(site, 'websocket.connect')

    socket.send('x'.repeat(2_000))

    expect(await socket.expectClosed()).toEqual({ code: 1009, reason: 'message too big' })
  })

  describe('closing by reply', () => {
    it.each<[WebSocketReply, { code: number; reason: string }]>([
      [{ close: true }, { code: 1000, reason: '' }],
      [
        { close: 1001, reason: 'moving' },
        { code: 1001, reason: 'moving' },
      ],
      [
        { close: 4_999, reason: 'é'.repeat(61) },
        { code: 4_999, reason: 'é'.repeat(61) },
      ],
      [
        { close: 4_000, reason: 'é'.repeat(62) },
        { code: 4_000, reason: 'é'.repeat(61) },
      ],
      [
        { close: 3_000, reason: '🍳'.repeat(40) },
        { code: 3_000, reason: '🍳'.repeat(30) },
      ],
    ])('closes on %j', async (reply, end) => {
      await using site = await answering(() => [reply])
      const socket = await site.connect('/')

      socket.send('x')

      expect(await socket.expectClosed()).toEqual(end)
    })

    it('sends first what the reply says, and nothing that follows it', async () => {
      await using site = await answering(() => [
        { content: 'one' },
        { content: 'last', close: true },
        { content: 'too late' },
        { close: 4_000 },
      ])
      const socket = await site.connect('/')

      socket.send('x')

      expect(await socket.expectClosed()).toEqual({ code: 1000, reason: '' })
      expect(await socket.next()).toBe('one')
      expect(await socket.next()).toBe('last')
      await socket.expectNothing()
      await site.drain()
      expect(site.counters()['dropped.gone']).toBe(2)
    })

    it('drops what follows it in the same turn', async () => {
      await using site = await silent()
      const socket = await site.connect('/')
      const { replyChannel } = await only(site, 'websocket.connect')

      await Promise.all([
        replyChannel.send({ content: 'last', close: 4_000 }),
        replyChannel.send({ content: 'too late' }),
        replyChannel.send({ close: 4_001 }),
      ])

      expect(await socket.expectClosed()).toEqual({ code: 4_000, reason: '' })
      expect(await socket.next()).toBe('last')
      await socket.expectNothing()
      expect(site.counters()['dropped.gone']).toBe(2)
    })

    it.each([[false], [undefined]])('leaves the socket open on close %j', async (close) => {
      await using site = await answering(() => [{ content: 'x', close } as WebSocketReply])
      const socket = await site.connect('/')

      socket.send('x')

      expect(await socket.next()).toBe('x')
      await expect(socket.expectClosed()).rejects.toThrow('stays open')
    })
  })

  it.each<[string, unknown]>([
    ['a content that is an object', { content: { n: 1 } }],
    ['a content that is a number', { content: 7 }],
    ['close 0', { content: 'x', close: 0 }],
    ['close 999', { content: 'x', close: 999 }],
    ['close 1004', { content: 'x', close: 1004 }],
    ['close 1005', { content: 'x', close: 1005 }],
    ['close 1006', { content: 'x', close: 1006 }],
    ['close 1015', { content: 'x', close: 1015 }],
    ['close 2000', { content: 'x', close: 2000 }],
    ['close 5000', { content: 'x', close: 5000 }],
    ['close "1000"', { content: 'x', close: '1000' }],
    ['close 1000.5', { content: 'x', close: 1000.5 }],
  ])('drops a reply with %s whole, counts it, and goes on', async (_what, reply) => {
    await using site = await answering((content) =>
      content === 'bad' ? [reply as WebSocketReply] : [{ content: 'good' }],
    )
    const socket = await site.connect('/')

    socket.send('bad')
    await socket.expectNothing()
    socket.send('good')

    expect(await socket.next()).toBe('good')
    await socket.expectNothing()
    expect(site.counters()['dropped.bad-reply']).toBe(1)
    await site.expectError()
  })

  describe('where a consumer decides on the handshake', () => {
    const websocket = { acceptance: 'consumer' } as const

    it.each<[WebSocketReply, readonly (string | Uint8Array)[]]>([
      [{ accept: true }, []],
      [{ accept: true, content: 'hi' }, ['hi']],
      [{ content: 'hi' }, ['hi']],
      [{ content: new Uint8Array([1]) }, [new Uint8Array([1])]],
    ])('is completed by %j', async (reply, messages) => {
      await using site = await silent({ websocket })
      const socket = await site.connect('/')
      expect(socket.accepted).toBe(false)

      const { replyChannel } = await only(site, 'websocket.connect')
      await replyChannel.send(reply)
      await site.drain()

      expect(socket.accepted).toBe(true)
      for (const message of messages) expect(await socket.next()).toEqual(message)
      socket.send('x')
      await only(site, 'websocket.receive')
    })

    it('delivers and closes on a reply with content and close', async () => {
      await using site = await silent({ websocket })
      const socket = await site.connect('/')

      const { replyChannel } = await only(site, 'websocket.connect')
      await replyChannel.send({ content: 'sorry', close: 4_003 })
      await site.drain()

      expect(await socket.next()).toBe('sorry')
      expect(await socket.expectClosed()).toEqual({ code: 4_003, reason: '' })
    })

    it.each<[WebSocketReply]>([
      [{ accept: false }],
      [{ accept: false, content: 'secret' }],
      [{ close: true }],
      [{ close: 4_003, reason: 'no' }],
    ])('is refused with 403 by %j, and no disconnect follows', async (reply) => {
      await using site = await silent({ websocket })
      const socket = await site.connect('/')

      const { replyChannel } = await only(site, 'websocket.connect')
      await replyChannel.send(reply)
      await site.drain()

      expect(socket.refusedStatus).toBe(403)
      expect(await site.receive('websocket.disconnect')).toEqual([])
      expect(site.counters()['handshake.refused-by-consumer']).toBe(1)
    })

    it('waits on after a reply that says nothing of it', async () => {
      await using site = await silent({ websocket })
      const socket = await site.connect('/')
      const { replyChannel } = await only(site, 'websocket.connect')

      await replyChannel.send({})
      await site.drain()

      expect([socket.accepted, socket.refusedStatus]).toEqual([false, undefined])
    })

    it('is refused with 504 when the consumer is too slow', async () => {
      await using site = await silent({ websocket: { ...websocket, handshakeMs: 1_000 } })
      const socket = await site.connect('/')
      const { replyChannel } = await only(site, 'websocket.connect')

      await site.advance(999)
      expect(socket.refusedStatus).toBe(undefined)
      await site.advance(1)
      await replyChannel.send({ accept: true })
      await site.drain()

      expect(socket.refusedStatus).toBe(504)
      expect(site.counters()).toMatchObject({ 'handshake.timed-out': 1, 'dropped.gone': 1 })
    })

    it('uses the subprotocol the consumer chooses', async () => {
      await using site = await silent({ websocket })
      const socket = await site.connect('/', { subprotocols: ['chat.v2', 'chat.v1'] })

      const { replyChannel } = await only(site, 'websocket.connect')
      await replyChannel.send({ accept: true, subprotocol: 'chat.v1' })
      await site.drain()

      expect(socket.subprotocol).toBe('chat.v1')
    })

    it.each<[unknown, string]>([
      ['chat.v3', '"chat.v3"'],
      ['chat.v1, chat.v2', '"chat.v1, chat.v2"'],
      [7, '7'],
    ])(
      'refuses with 500 where the consumer chooses %j, which is not offered',
      async (subprotocol, shownName) => {
        await using site = await silent({ websocket })
        const socket = await site.connect('/', { subprotocols: ['chat.v2', 'chat.v1'] })

        const { replyChannel } = await only(site, 'websocket.connect')
        await replyChannel.send({ accept: true, subprotocol } as WebSocketReply)
        await site.drain()

        expect(socket.refusedStatus).toBe(500)
        await site.expectError(`subprotocol is ${shownName}, which the client does not offer`)
      },
    )

    it('tells of a client that left before the decision', async () => {
      await using site = await silent({ websocket })
      const socket = await site.connect('/')
      await only(site, 'websocket.connect')

      await socket.cut()

      expect((await only(site, 'websocket.disconnect')).content.code).toBe(1006)
    })
  })

  it('chooses the first subprotocol where no consumer decides', async () => {
    await using site = await silent()

    const socket = await site.connect('/', { subprotocols: ['chat.v2', 'chat.v1'] })

    expect(socket.subprotocol).toBe('chat.v2')
  })

  describe('a slow reader', () => {
    it('is closed with 1013 and counted, and nobody else feels it', async () => {
      const websocket = { maxBufferedBytes: 100_000 }
      const routing = defineRouting({
        'websocket.connect': (message) => Group('all').add(message.replyChannel),
      })
      await using site = await TestSite.open({ routing, websocket })
      const [slow, quick] = [await site.connect('/'), await site.connect('/')]
      slow.pause()

      let sent = 0
      for (; slow.closed === undefined && sent < 50; sent++) {
        await Group('all').send({ content: 'x'.repeat(20_000) })
        expect(await quick.next()).toHaveLength(20_000)
        await site.advance(500)
      }

      expect(sent).toBeLessThan(20)
      expect(site.counters()).toMatchObject({ 'closed.slow-reader': 1 })
      slow.resume()
      await site.drain()
      expect(slow.closed?.code).toBe(1006)
      quick.send('still here')
    })

    it('learns why, where it reads on in time', async () => {
      const websocket = { maxBufferedBytes: 100_000 }
      await using site = await silent({ websocket })
      const slow = await site.connect('/')
      const { replyChannel } = await only(site, 'websocket.connect')
      slow.pause()

      for (let sent = 0; sent < 10; sent++) {
        await replyChannel.send({ content: 'x'.repeat(20_000) })
        await site.drain()
      }
      await site.advance(1_000)
      slow.resume()

      expect(await slow.expectClosed()).toEqual({ code: 1013, reason: 'reading too slowly' })
    })

    it('is none when it takes a burst within a second', async () => {
      const websocket = { maxBufferedBytes: 100_000 }
      await using site = await silent({ websocket })
      const quick = await site.connect('/')
      const { replyChannel } = await only(site, 'websocket.connect')
      quick.pause()

      for (let sent = 0; sent < 10; sent++) {
        await replyChannel.send({ content: 'x'.repeat(20_000) })
        await site.drain()
      }
      quick.resume()
      for (let taken = 0; taken < 10; taken++) await quick.next()
      await site.advance(2_000)

      expect(site.counters()['closed.slow-reader']).toBeUndefined()
    })
  })

  describe('when its channel is full', () => {
    it('reads no more from the client until there is room, and loses nothing', async () => {
      await using site = await silent(
        {},
        { backend: { channelCapacity: [['websocket.receive', 2]] } },
      )
      const [busy, other] = [await site.connect('/busy'), await site.connect('/other')]
      for (let n = 0; n < 100; n++) busy.send(String(n))
      await site.drain()
      expect(site.counters()['held.clients']).toBe(1)
      await other.close()
      expect((await only(site, 'websocket.disconnect')).content.path).toBe('/other')

      const seen: unknown[] = []
      for (let round = 0; round < 100 && seen.length < 100; round++) {
        const messages = await site.receive('websocket.receive')
        seen.push(...messages.map(({ content }) => Number(content.content)))
        await site.advance(500)
      }

      expect(seen).toEqual(Array.from({ length: 100 }, (_, n) => n))
      expect(site.counters()).not.toHaveProperty('dropped.full-event')
    })
  })

  describe('keepalive', () => {
    it('is told of each open socket every half group expiry, where a consumer listens', async () => {
      const paths: string[] = []
      const routing = defineRouting({
        'websocket.keepalive': (message) => {
          paths.push(message.content.path)
        },
      })
      await using site = await TestSite.open({ routing })
      const [ann] = [await site.connect('/ann'), await site.connect('/ben')]

      await site.advance(60_000)
      const firstMinute = paths.splice(0).sort()
      await ann.close()
      await site.advance(60_000)

      expect(firstMinute).toEqual(['/ann', '/ann', '/ben', '/ben'])
      expect(paths).toEqual(['/ben', '/ben'])
    })

    it('is not told where no consumer listens', async () => {
      await using site = await TestSite.open()
      await site.connect('/')

      await site.advance(120_000)

      expect(site.counters()).not.toHaveProperty('run')
      expect(await site.receive('websocket.keepalive')).toEqual([])
    })
  })

  describe('group memberships', () => {
    const joining = defineRouting({
      'websocket.connect': (message) => Group('all').add(message.replyChannel),
    })

    it('are renewed while the socket is open, and end with it', async () => {
      await using site = await TestSite.open({ routing: joining })
      const socket = await site.connect('/')

      await site.advance(600_000)
      await Group('all').send({ content: 'still here' })
      expect(await socket.next()).toBe('still here')
      await socket.close()

      expect(await Group('all').channels()).toEqual([])
    })

    it('end after the group expiry where renewal is manual', async () => {
      await using site = await TestSite.open({
        routing: joining,
        websocket: { renewal: 'manual' },
      })
      const socket = await site.connect('/')

      await site.advance(60_000)
      await Group('all').send({ content: 'anyone?' })

      await socket.expectNothing()
    })
  })

  describe('pings', () => {
    it('leave a socket open that answers', async () => {
      await using site = await TestSite.open()
      const socket = await site.connect('/')

      await site.advance(600_000)

      expect(socket.closed).toBe(undefined)
    })

    it('cut a socket that does not answer', async () => {
      await using site = await TestSite.open()
      const socket = await site.connect('/')

      socket.pause()
      await site.advance(60_000)
      socket.resume()
      await site.drain()

      expect(socket.closed?.code).toBe(1006)
      expect(site.counters()['closed.no-pong']).toBe(1)
    })
  })

  it('counts replies to a client that is gone', async () => {
    await using site = await silent()
    const socket = await site.connect('/')
    const { replyChannel } = await only(site, 'websocket.connect')
    await socket.cut()

    await replyChannel.send({ content: 'anyone?' })
    await site.drain()

    expect(site.counters()['dropped.gone']).toBe(1)
  })

  it('counts events that no worker consumes', async () => {
    await using site = await TestSite.open()
    const socket = await site.connect('/')

    socket.send('x')
    await site.drain()

    expect(site.counters()['dropped.not-consumed']).toBe(2)
  })

  it('does not let a consumer that fails close the socket', async () => {
    const routing = defineRouting({
      'websocket.receive': async ({ content, replyChannel }) => {
        if (content.content === 'bad') throw new Error('broken')
        await replyChannel.send({ content: 'good' })
      },
    })
    await using site = await TestSite.open({ routing })
    const socket = await site.connect('/')

    socket.send('bad')
    socket.send('good')

    expect(await socket.next()).toBe('good')
    await site.expectError('broken')
  })

  it('runs a client’s events in parallel with its slow consumer', async () => {
    const held = deferred()
    const routing = defineRouting({
      'websocket.receive': async ({ content, replyChannel }) => {
        if (content.content === 'slow') await held.promise
        await replyChannel.send({ content: content.content })
      },
    })
    await using site = await TestSite.open({ routing })
    const socket = await site.connect('/')

    socket.send('slow')
    socket.send('quick')

    expect(await socket.next()).toBe('quick')
    held.resolve()
    expect(await socket.next()).toBe('slow')
  })
})

describe('WebSocketServer', () => {
  it.each([
    ['https://evil.example', 403],
    ['null', 403],
    ['http://localhost', undefined],
    ['http://localhost:3000', undefined],
    [undefined, undefined],
  ])('answers a handshake of Origin %s with %s, before any consumer', async (origin, status) => {
    await using site = await silent()

    const socket = await site.connect('/', { headers: { origin } })

    expect(socket.refusedStatus).toBe(status)
    expect(await site.receive('websocket.connect')).toHaveLength(status === undefined ? 1 : 0)
    expect(site.counters()['handshake.refused-origin'] ?? 0).toBe(status === undefined ? 0 : 1)
  })

  it('admits a client without Origin only from this machine', async () => {
    await using site = await silent()

    const options = { headers: { origin: undefined }, client: ['203.0.113.9', 1] } as const

    expect((await site.connect('/', options)).refusedStatus).toBe(403)
  })

  it('answers 503 beyond the most sockets, until one is closed', async () => {
    await using site = await silent({ websocket: { maxSockets: 1 } })
    const first = await site.connect('/')

    const second = await site.connect('/')
    await first.close()
    const third = await site.connect('/')

    expect(second.refusedStatus).toBe(503)
    expect(third.accepted).toBe(true)
    expect(site.counters()['handshake.refused-full']).toBe(1)
  })

  it('answers 404 on a path that is not its own', async () => {
    await using site = await silent({ websocket: { paths: ['/ws/'] } })

    expect((await site.connect('/ws/room')).accepted).toBe(true)
    expect((await site.connect('/other')).refusedStatus).toBe(404)
  })

  it('answers 400 to a path that cannot be decoded', async () => {
    await using site = await silent()

    expect((await site.connect('/%ff')).refusedStatus).toBe(400)
    expect(site.counters()['handshake.bad']).toBe(1)
  })

  it('takes the word of a trusted proxy on TLS and the client', async () => {
    await using site = await silent({ http: { trustedProxies: ['127.0.0.1'] } })

    await site.connect('/', {
      headers: {
        origin: 'https://localhost',
        'x-forwarded-proto': 'https',
        'x-forwarded-for': '203.0.113.9',
      },
    })

    const { content } = await only(site, 'websocket.connect')
    expect(content).toMatchObject({ scheme: 'wss', client: ['203.0.113.9', 0] })
  })

  it('lets a site answer through any channel that knows the reply channel', async () => {
    await using site = await silent()
    const socket = await site.connect('/')
    const { content } = await only(site, 'websocket.connect')

    await Channel(content.reply_channel).send({ content: 'from elsewhere' })

    expect(await socket.next()).toBe('from elsewhere')
  })
})
