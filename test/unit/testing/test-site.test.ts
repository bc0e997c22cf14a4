import { Channel, defineConfig, defineRouting, Group, type Message, Requeue } from 'channelkit'
import { TestSite } from 'channelkit/testing'
import { describe, expect, it } from 'vitest'

const chat = defineRouting({
  'websocket.connect': async (message) => {
    await Group('chat').add(message.replyChannel)
  },
  'websocket.receive': async (message) => {
    await Group('chat').send({ content: message.content.content })
  },
  'websocket.disconnect': async (message) => {
    await Group('chat').discard(message.replyChannel)
    await Group('chat').send({ content: `left with ${message.content.code}` })
  },
})

const hello = {
  fetch: async (request: Request) =>
    new Response(`${request.method} ${new URL(request.url).pathname} ${await request.text()}`),
}

/** A consumer that ends when the test says so. */
function heldConsumer() {
  const { promise, resolve } = withResolvers()
  return { release: resolve, consumer: () => promise }
}

function withResolvers() {
  let resolve = (): void => {}
  const promise = new Promise<void>((settle) => {
    resolve = settle
  })
  return { promise, resolve }
}

describe('TestSite', () => {
  describe('.open()', () => {
    it('makes the site the current one, and close() the one before it', async () => {
      await using outer = await TestSite.open()
      const inner = await TestSite.open()
      await Channel('jobs').send({ n: 1 })
      expect(await inner.receive('jobs')).toHaveLength(1)
      await inner.close()

      await Channel('jobs').send({ n: 2 })

      const [message] = await outer.receive('jobs')
      expect(message?.content).toEqual({ n: 2 })
    })

    it('puts every backend of a config on memory', async () => {
      const refused = () => {
        throw new Error('the real backend is made')
      }
      const config = defineConfig({
        channelBackends: {
          default: { backend: refused, routing: chat },
          slow: { backend: refused, routing: defineRouting({ jobs: () => {} }) },
        },
      })

      await using site = await TestSite.open(config)
      await Channel('jobs', { backend: 'slow' }).send({})
      await site.drain()

      expect(site.counters().run).toBe(1)
    })

    it('loads a config file, with its routing and app by reference', async () => {
      await using site = await TestSite.open('test/support/sites/greeting/channels.config.ts')

      const response = await site.request('/ann')

      expect(await response.text()).toBe('Hello ann')
    })

    it('leaves the current site as it was when it cannot be opened', async () => {
      const opening = TestSite.open({ routing: './no-such-file.ts#routing' })

      await expect(opening).rejects.toMatchObject({ code: 'ERR_CONSUMER_NOT_FOUND' })
      await expect(Channel('jobs').send({})).rejects.toMatchObject({ code: 'ERR_NOT_CONFIGURED' })
    })

    it('refuses a routing beside channelBackends', async () => {
      const opening = TestSite.open({ routing: chat, channelBackends: { default: {} } })

      await expect(opening).rejects.toMatchObject({ code: 'ERR_INVALID_CONFIG' })
    })
  })

  describe('.connect()', () => {
    it('carries text and bytes between sockets through the consumers', async () => {
      await using site = await TestSite.open({ routing: chat })
      const ann = await site.connect('/kitchen')
      const ben = await site.connect('/kitchen')

      ann.send('hello')
      ann.send(new Uint8Array([1, 2]))

      expect(await ben.next()).toBe('hello')
      expect(await ben.next()).toEqual(new Uint8Array([1, 2]))
      expect(await ann.next()).toBe('hello')
    })

    it('sends path, query, headers, cookies, subprotocols and address', async () => {
      await using site = await TestSite.open({}, { workers: false })

      const socket = await site.connect('/kitchen?x=1&x=2', {
        headers: { 'x-theme': 'dark' },
        cookies: { theme: 'a b', session: 's1' },
        subprotocols: ['chat.v2', 'chat.v1'],
        client: ['203.0.113.9', 4_000],
      })

      const [message] = await site.receive('websocket.connect')
      expect(message?.content).toMatchObject({
        path: '/kitchen',
        query_string: 'x=1&x=2',
        get: { x: ['1', '2'] },
        cookies: { theme: 'a b', session: 's1' },
        subprotocols: ['chat.v2', 'chat.v1'],
        client: ['203.0.113.9', 4_000],
        scheme: 'ws',
      })
      expect(message?.content.headers).toContainEqual(['x-theme', 'dark'])
      expect(message?.content.headers).toContainEqual(['origin', 'http://localhost'])
      expect(socket.subprotocol).toBe('chat.v2')
    })

    it('seems to speak TLS where the URL says wss', async () => {
      await using site = await TestSite.open({}, { workers: false })

      await site.connect('wss://example.com/room')

      const [message] = await site.receive('websocket.connect')
      expect(message?.content.scheme).toBe('wss')
      expect(message?.content.headers).toContainEqual(['origin', 'https://example.com'])
    })

    it('tells the status by which a handshake is refused', async () => {
      await using site = await TestSite.open()

      const socket = await site.connect('/', { headers: { origin: 'https://evil.example' } })

      expect(socket.accepted).toBe(false)
      expect(socket.refusedStatus).toBe(403)
      expect(() => socket.send('x')).toThrow('was refused with 403')
    })

    it('gives a socket whose handshake waits for its consumer', async () => {
      const routing = defineRouting({ 'websocket.connect': () => {} })
      await using site = await TestSite.open({ routing, websocket: { acceptance: 'consumer' } })

      const socket = await site.connect('/')
      expect(socket.accepted).toBe(false)
      expect(socket.refusedStatus).toBe(undefined)
      await site.advance(5_000)

      expect(socket.refusedStatus).toBe(504)
    })
  })

  describe('TestSocket', () => {
    it('tells what it waited for in vain, and what failed meanwhile', async () => {
      const routing = defineRouting({
        'websocket.receive': function shout() {
          throw new Error('out of voice')
        },
      })
      await using site = await TestSite.open({ routing })
      const socket = await site.connect('/kitchen')

      socket.send('hello')

      await expect(socket.next()).rejects.toThrow(
        'no message came on socket /kitchen; nothing is running; the first error was: out of voice',
      )
      await site.expectError('out of voice')
    })

    it('tells which message it did not expect', async () => {
      await using site = await TestSite.open({ routing: chat })
      const socket = await site.connect('/')
      await socket.expectNothing()

      await Group('chat').send({ content: 'hi' })

      await expect(socket.expectNothing()).rejects.toThrow('the first "hi"')
    })

    it('tells how it was closed by the server', async () => {
      const routing = defineRouting({
        'websocket.receive': async (message) => {
          await message.replyChannel.send({ content: 'bye', close: 4_001, reason: 'enough' })
        },
      })
      await using site = await TestSite.open({ routing })
      const socket = await site.connect('/')
      await expect(socket.expectClosed()).rejects.toThrow('stays open')

      socket.send('x')

      expect(await socket.expectClosed()).toEqual({ code: 4_001, reason: 'enough' })
      expect(await socket.next()).toBe('bye')
      await expect(socket.next()).rejects.toThrow('closed with 4001 "enough"')
      expect(() => socket.send('y')).toThrow('cannot send')
    })

    it('closes and cuts with the codes a server sees', async () => {
      await using site = await TestSite.open({ routing: chat })
      const [ann, ben, eve] = [
        await site.connect('/'),
        await site.connect('/'),
        await site.connect('/'),
      ]

      await ann.close()
      await ben.close(4_000)
      expect(await eve.next()).toBe('left with 1005')
      expect(await eve.next()).toBe('left with 4000')
      const tom = await site.connect('/')
      await tom.cut()

      expect(await eve.next()).toBe('left with 1006')
      expect(ben.closed).toEqual({ code: 4_000, reason: '' })
    })
  })

  describe('.request()', () => {
    it('answers through the app', async () => {
      await using site = await TestSite.open({ app: hello })

      const response = await site.request('/things?x=1', { method: 'POST', body: 'one' })

      expect(response.status).toBe(200)
      expect(await response.text()).toBe('POST /things one')
    })

    it('takes a Request, and answers without a body where the status has none', async () => {
      const routing = defineRouting({
        'http.request': (message) => message.replyChannel.send({ status: 204 }),
      })
      await using site = await TestSite.open({ routing })

      const response = await site.request(new Request('https://example.com/x'))

      expect(response.status).toBe(204)
      expect(response.body).toBe(null)
    })

    it('rejects when nothing answers', async () => {
      const routing = defineRouting({ 'http.request': () => {} })
      await using site = await TestSite.open({ routing }, { patienceMs: 50 })

      await expect(site.request('/')).rejects.toThrow('no answer came to GET /; nothing is running')
    })

    it('waits on while the clock is moved', async () => {
      await using site = await TestSite.open({ routing: chat })

      const answer = site.request('/')
      await site.advance(5_000)

      expect((await answer).status).toBe(503)
    })
  })

  describe('.receive()', () => {
    it('takes what waits on a channel without a consumer, once', async () => {
      await using site = await TestSite.open()
      await site.channel('jobs').send({ n: 1 })
      await site.channel('jobs').send({ n: 2 })

      const messages = await site.receive('jobs')

      expect(messages.map(({ content }) => content)).toEqual([{ n: 1 }, { n: 2 }])
      expect(await site.receive('jobs')).toEqual([])
    })

    it('takes what clients do, without workers', async () => {
      await using site = await TestSite.open({ routing: chat }, { workers: false })
      const socket = await site.connect('/kitchen')
      socket.send('hello')

      const [message] = await site.receive('websocket.receive')

      expect(message?.content.content).toBe('hello')
      await message?.replyChannel.send({ content: 'answer' })
      expect(await socket.next()).toBe('answer')
    })

    it('refuses a channel that has a consumer', async () => {
      await using site = await TestSite.open({ routing: chat })

      await expect(site.receive('websocket.receive')).rejects.toThrow('has a consumer')
    })
  })

  describe('.drain()', () => {
    it('runs what consumers set going, to the end', async () => {
      const seen: unknown[] = []
      const routing = defineRouting({
        first: async () => {
          for (let n = 0; n < 3; n++) await new Promise(setImmediate)
          await Channel('second').send({ n: 1 })
        },
        second: (message: Message) => {
          seen.push(message.content)
        },
      })
      await using site = await TestSite.open({ routing })
      await Channel('first').send({})

      await site.drain()

      expect(seen).toEqual([{ n: 1 }])
    })

    it('rejects naming the consumers that do not end', async () => {
      const held = heldConsumer()
      const routing = defineRouting({ jobs: held.consumer, other: () => {} })
      await using site = await TestSite.open({ routing }, { patienceMs: 20 })
      await Channel('jobs').send({})

      await expect(site.drain()).rejects.toThrow('consumer on jobs still running')

      held.release()
    })
  })

  describe('.advance()', () => {
    it('lets what waits for the clock go on', async () => {
      let tries = 0
      const routing = defineRouting({
        jobs: () => {
          tries++
          if (tries === 1) throw new Requeue({ delayMs: 1_000 })
        },
      })
      await using site = await TestSite.open({ routing })
      await Channel('jobs').send({})
      await site.drain()
      expect(tries).toBe(1)

      await site.advance(1_000)

      expect(tries).toBe(2)
    })
  })

  describe('.close()', () => {
    const failing = defineRouting({
      jobs: () => {
        throw new Error('broken')
      },
    })

    it('rejects with what a consumer threw', async () => {
      const site = await TestSite.open({ routing: failing })
      await Channel('jobs').send({})

      await expect(site.close()).rejects.toThrow('broken')
    })

    it('resolves when the error was expected', async () => {
      const site = await TestSite.open({ routing: failing })
      await Channel('jobs').send({})

      expect((await site.expectError(/bro/)).message).toBe('broken')
      expect(site.errors).toEqual([])
      await expect(site.expectError()).rejects.toThrow('no error came')

      await expect(site.close()).resolves.toBe(undefined)
    })

    it.each([[undefined], ['text'], [7]])('tells of a consumer that throws %j', async (thrown) => {
      const routing = defineRouting({
        jobs: function odd() {
          throw thrown
        },
      })
      const site = await TestSite.open({ routing })
      await Channel('jobs').send({})

      await expect(site.close()).rejects.toThrow('consumer odd failed on jobs: it threw')
    })

    it('rejects with what a view threw', async () => {
      const app = {
        fetch: () => {
          throw new Error('no template')
        },
      }
      const site = await TestSite.open({ app })

      expect((await site.request('/')).status).toBe(500)

      await expect(site.close()).rejects.toThrow('no template')
    })

    it('rejects naming a consumer that never ends, after the grace of its clock', async () => {
      const routing = defineRouting({
        jobs: function forever() {
          return new Promise<void>(() => {})
        },
      })
      const site = await TestSite.open({ routing }, { patienceMs: 20 })
      const startedAt = site.clock.now()
      await Channel('jobs').send({})

      await expect(site.close()).rejects.toThrow('forever on jobs still running')
      expect(site.clock.now() - startedAt).toBeGreaterThanOrEqual(30_000)
    })

    it('lets the disconnect consumers of open sockets run', async () => {
      const codes: number[] = []
      const routing = defineRouting({
        'websocket.disconnect': (message) => {
          codes.push(message.content.code)
        },
      })
      const site = await TestSite.open({ routing })
      await site.connect('/')

      await site.close()

      expect(codes).toEqual([1001])
    })
  })

  it('logs what the site logs', async () => {
    await using site = await TestSite.open()

    await site.connect('/', { headers: { origin: 'https://evil.example' } })

    expect(site.log.map(({ level }) => level)).toContain('warn')
  })
})
