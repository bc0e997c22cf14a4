import {
  Channel,
  type Consumer,
  channelSession,
  linearize,
  type Message,
  Requeue,
  type WithChannelSession,
  Worker,
} from 'channelkit'
import { FakeClock } from 'channelkit/testing'
import { MemoryStore } from 'express-session'
import { describe, expect, it } from 'vitest'
import { currentSite } from '../../../src/current-site.ts'
import { silentLogger } from '../../../src/logger.ts'
import { expiryOf } from '../../../src/sessions/session.ts'
import { SiteSessions } from '../../../src/sessions/site-sessions.ts'
import { openSessionSite } from '../../support/session-site.ts'

const remember = channelSession((message: Message<'websocket.connect'> & WithChannelSession) => {
  message.channelSession.room = message.content.path
})

const tell = channelSession(async (message) => {
  await message.replyChannel.send({ content: JSON.stringify(message.channelSession) })
})

describe('channelSession', () => {
  it('keeps what one consumer stored for the next of the same client', async () => {
    await using site = await openSessionSite({
      'websocket.connect': remember,
      'websocket.receive': tell,
    })
    const ann = await site.connect('/kitchen')
    const ben = await site.connect('/garden')

    ann.send('?')
    ben.send('?')

    expect(await ann.next()).toBe('{"room":"/kitchen"}')
    expect(await ben.next()).toBe('{"room":"/garden"}')
  })

  it('stores nothing for a client whose consumers keep nothing', async () => {
    await using site = await openSessionSite({ 'websocket.receive': tell })
    const ann = await site.connect('/')

    ann.send('?')

    expect(await ann.next()).toBe('{}')
    expect(await site.all()).toEqual({})
  })

  it('has keys that do not tell the reply channel', async () => {
    let replyChannel = ''
    await using site = await openSessionSite({
      'websocket.connect': channelSession((message) => {
        message.channelSession.here = true
        replyChannel = message.replyChannel.name
      }),
    })
    await site.connect('/')

    const [key = ''] = Object.keys(await site.all())

    expect(key).toMatch(/^channel-[\w-]{43}$/)
    expect(key).not.toContain(replyChannel.split('!')[1])
  })

  it('is saved when the consumer throws', async () => {
    await using site = await openSessionSite({
      'websocket.connect': channelSession((message) => {
        message.channelSession.room = 'kitchen'
        throw new Error('no room')
      }),
      'websocket.receive': tell,
    })
    const ann = await site.connect('/')

    ann.send('?')

    expect(await ann.next()).toBe('{"room":"kitchen"}')
    expect((await site.test.expectError('no room')).message).toBe('no room')
  })

  it('is the same session when it is applied twice, with others between', async () => {
    await using site = await openSessionSite({
      'websocket.connect': channelSession(
        linearize(
          channelSession((message) => {
            message.channelSession.room = 'kitchen'
          }),
        ),
      ),
      'websocket.receive': tell,
    })
    const ann = await site.connect('/')

    ann.send('?')

    expect(await ann.next()).toBe('{"room":"kitchen"}')
  })

  it('ends after the consumer of websocket.disconnect', async () => {
    const seen: unknown[] = []
    await using site = await openSessionSite({
      'websocket.connect': remember,
      'websocket.disconnect': channelSession((message) => {
        seen.push(message.channelSession.room)
      }),
    })
    const ann = await site.connect('/kitchen')

    await ann.close()
    await site.test.drain()

    expect(seen).toEqual(['/kitchen'])
    expect(await site.all()).toEqual({})
  })

  it('ends with the socket also where nothing consumes websocket.disconnect', async () => {
    await using site = await openSessionSite({ 'websocket.connect': remember })
    const ann = await site.connect('/kitchen')
    expect(Object.keys(await site.all())).toHaveLength(1)

    await ann.cut()
    await site.test.drain()

    expect(await site.all()).toEqual({})
  })

  it.each<[string, { 'websocket.disconnect': Consumer<Message<'websocket.disconnect'>> }]>([
    ['has no consumer', {} as never],
    ['has one that is not linearized', { 'websocket.disconnect': () => {} }],
  ])('lasts for what its client sent before, where websocket.disconnect %s', async (_, extra) => {
    const seen: unknown[] = []
    await using site = await openSessionSite({
      'websocket.connect': linearize(remember),
      'websocket.receive': linearize(
        channelSession(async (message) => {
          for (let turns = 9; turns > 0; turns--) await new Promise(setImmediate)
          seen.push(message.channelSession.room)
        }),
      ),
      ...extra,
    })
    const ann = await site.connect('/kitchen')

    for (let n = 1; n <= 6; n++) ann.send(`line ${n}`)
    await ann.close()
    await site.test.drain()

    expect(seen).toEqual(Array.from({ length: 6 }, () => '/kitchen'))
    expect(await site.all()).toEqual({})
  })

  it('leaves websocket.disconnect to the worker that consumes it', async () => {
    await using site = await openSessionSite({ 'websocket.connect': remember })
    const seen: unknown[] = []
    const leave = async (message: Message<'websocket.disconnect'>) => {
      await new Promise(setImmediate)
      seen.push(message.content.path)
    }
    const routing = new Map([['websocket.disconnect', leave as Consumer]])
    const other = new Worker({ backend: currentSite().backend(), routing, concurrency: 1 })
    await other.start()
    await site.test.advance(2_100)
    const paths = Array.from({ length: 20 }, (_, index) => `/${index}`)

    const sockets = await Promise.all(paths.map((path) => site.connect(path)))
    await Promise.all(sockets.map((socket) => socket.close()))
    await site.test.drain()

    expect(seen).toEqual(paths)
    await other.stop()
  })

  it('is not brought back by a consumer that ends after its socket', async () => {
    await using site = await openSessionSite({
      'websocket.connect': remember,
      'websocket.receive': channelSession(async (message) => {
        await message.replyChannel.send({ close: true })
        while (Object.keys(await site.all()).length > 0) await new Promise(setImmediate)
        message.channelSession.late = true
      }),
    })
    const ann = await site.connect('/kitchen')

    ann.send('!')
    await ann.expectClosed()
    await site.test.drain()

    expect(await site.all()).toEqual({})
  })

  it('loses no key of two consumers that save at once', async () => {
    await using site = await openSessionSite({
      'websocket.connect': remember,
      'websocket.receive': channelSession((message) => {
        message.channelSession[`key${message.content.content}`] = true
      }),
    })
    const ann = await site.connect('/kitchen')

    for (let index = 0; index < 50; index++) ann.send(String(index))
    await site.test.drain()

    const [stored = {}] = Object.values(await site.all())
    expect(Object.keys(stored).filter((key) => key.startsWith('key'))).toHaveLength(50)
  })

  it('says so when two consumers change one key at once', async () => {
    const releases: (() => void)[] = []
    await using site = await openSessionSite({
      'websocket.connect': remember,
      'websocket.receive': channelSession(async (message) => {
        await new Promise<void>((resolve) => releases.push(resolve))
        message.channelSession.room = String(message.content.content)
      }),
    })
    const ann = await site.connect('/kitchen')
    ann.send('one')
    ann.send('two')
    while (releases.length < 2) await new Promise(setImmediate)

    for (const release of releases) release()
    await site.test.drain()

    const warnings = site.test.log.filter(({ level }) => level === 'warn')
    expect(warnings).toMatchObject([{ facts: { keys: ['room'] } }])
  })

  it('says so when two consumers count at once, and come to the same', async () => {
    const releases: (() => void)[] = []
    await using site = await openSessionSite({
      'websocket.receive': channelSession(async (message) => {
        const count = Number(message.channelSession.count ?? 0)
        await new Promise<void>((resolve) => releases.push(resolve))
        message.channelSession.count = count + 1
      }),
    })
    const ann = await site.connect('/')
    for (const text of ['one', 'two', 'three']) ann.send(text)
    while (releases.length < 3) await new Promise(setImmediate)

    for (const release of releases) release()
    await site.test.drain()

    const warnings = site.test.log.filter(({ level }) => level === 'warn')
    const one = { facts: { keys: ['count'] }, message: expect.stringContaining('linearize') }
    expect(warnings).toMatchObject([one, one])
  })

  it('is not made by a consumer that ends after its socket', async () => {
    let release = (): void => {}
    await using site = await openSessionSite({
      'websocket.receive': channelSession(async (message) => {
        await new Promise<void>((resolve) => {
          release = resolve
        })
        message.channelSession.room = 'kitchen'
      }),
      'websocket.disconnect': () => {},
    })
    const ann = await site.connect('/')
    ann.send('!')
    await ann.close()
    while ((await site.endedCount()) === 0) await new Promise(setImmediate)

    release()
    await site.test.drain()

    expect(await site.all()).toEqual({})
  })

  it('waits for a consumer of websocket.disconnect that is to run again', async () => {
    const seen: unknown[] = []
    await using site = await openSessionSite({
      'websocket.connect': remember,
      'websocket.disconnect': channelSession((message) => {
        seen.push(message.channelSession.room)
        if (message.attempts === 0) throw new Requeue({ delayMs: 0 })
      }),
    })
    const ann = await site.connect('/kitchen')

    await ann.close()
    await site.test.drain()
    await site.test.advance(1)
    await site.test.drain()

    expect(seen).toEqual(['/kitchen', '/kitchen'])
    expect(await site.all()).toEqual({})
  })

  it('lives for ten minutes where it belongs to an HTTP request', async () => {
    await using site = await openSessionSite({
      'http.request': channelSession(async (message) => {
        message.channelSession.step = 1
        await message.replyChannel.send({ status: 200, content: 'done' })
      }),
    })

    const response = await site.test.request('/')
    await site.test.drain()

    expect(response.status).toBe(200)
    const [stored] = Object.values(await site.all())
    expect(stored).toMatchObject({ step: 1, cookie: { originalMaxAge: 600_000 } })
    expect(new Date(stored?.cookie?.expires ?? 0).getTime()).toBeLessThan(Date.now() + 600_001)
  })

  it('takes no key of its own from a consumer', async () => {
    await using site = await openSessionSite({
      'websocket.connect': remember,
      'websocket.receive': channelSession((message) => {
        message.channelSession[String(message.content.content)] = 'a key of a victim'
      }),
    })
    await site.put('a key of a victim', { userId: 1 })
    const eve = await site.connect('/kitchen')

    eve.send('channelkit:http')

    const error = await site.test.expectError('channelkit:http')
    expect(error).toMatchObject({ code: 'ERR_INVALID_CONTENT' })
    expect(JSON.stringify(await site.all())).not.toContain('channelkit:http')
  })

  it('reaches a consumer of another channel that is sent reply_channel', async () => {
    await using site = await openSessionSite({
      'websocket.connect': remember,
      'websocket.receive': async (message) => {
        await Channel('orders').send({ reply_channel: message.replyChannel.name })
      },
      orders: tell,
    })
    const ann = await site.connect('/kitchen')

    ann.send('!')

    expect(await ann.next()).toBe('{"room":"/kitchen"}')
  })

  it('rejects a message without reply channel, naming its channel and the wrapper', async () => {
    await using site = await openSessionSite({ orders: tell })

    await Channel('orders').send({})

    const error = await site.test.expectError('channelSession is around a consumer of orders')
    expect(error).toMatchObject({ code: 'ERR_NO_REPLY_CHANNEL' })
  })

  it('finds sessions made before the secret was rotated', async () => {
    const store = new MemoryStore()
    const parts = { isProduction: false, logger: silentLogger }
    const before = new SiteSessions({ ...parts, session: { store, secret: 'old' } })
    const after = new SiteSessions({ ...parts, session: { store, secret: ['new', 'old'] } })
    const session = await before.loadOfChannel('inbox!client')
    session.room = 'kitchen'
    await before.saveOfChannel(session)

    const found = await after.loadOfChannel('inbox!client')

    expect(found.room).toBe('kitchen')
  })

  it('expires when it is not used, and not while it is', async () => {
    const store = new MemoryStore()
    const clock = new FakeClock(Date.now())
    const sessions = new SiteSessions({
      session: { store, secret: 'secret', channelExpiryMs: 1_000 },
      isProduction: false,
      logger: silentLogger,
      clock,
    })
    const session = await sessions.loadOfChannel('inbox!client')
    session.room = 'kitchen'
    await sessions.saveOfChannel(session)

    await clock.advance(600)
    const used = await sessions.loadOfChannel('inbox!client')
    await sessions.saveOfChannel(used)

    const again = await sessions.loadOfChannel('inbox!client')
    expect(expiryOf(again)).toBe(clock.now() + 1_000)
  })
})
