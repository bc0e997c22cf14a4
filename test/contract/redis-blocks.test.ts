import { once } from 'node:events'
import { type AddressInfo, connect, createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Content } from 'channelkit'
import type { ReceiveOptions } from 'channelkit/backend'
import { RedisBackend, type RedisBackendOptions } from 'channelkit/redis'
import { createClient } from 'redis'
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest'
import { RedisServer } from '../support/redis-server.ts'
import { redisUrlIn } from '../support/redis-store.ts'
import { startRedis } from '../support/service-process.ts'

const redis = await startRedis()
afterAll(() => redis[Symbol.asyncDispose]())

const forever = Number.POSITIVE_INFINITY

describe('work channels in Redis', () => {
  let count = 0
  let prefix: string
  const backends: RedisBackend[] = []
  const admin = createClient({ socket: { path: join(redis.folder, 'redis.sock'), tls: false } })
  const open = (options: Partial<RedisBackendOptions> = {}) => {
    const backend = new RedisBackend({ url: redisUrlIn(redis.folder), prefix, ...options })
    backends.push(backend)
    return backend
  }
  const batch = (channel: string, from: number, to: number) =>
    Array.from({ length: to - from + 1 }, (_, index) => ({
      channel,
      content: { number: from + index, reply_channel: `reply.x!${(from + index + 30) % 3}` },
    }))
  const numbers = (messages: readonly { readonly content: object }[]) =>
    messages.map(({ content }) => (content as { number: number }).number)
  const take = async (backend: RedisBackend, max: number, rest: Partial<ReceiveOptions> = {}) =>
    backend.receive(['jobs'], { max, waitMs: 0, ...rest })
  const range = (from: number, to: number) =>
    Array.from({ length: to - from + 1 }, (_, index) => from + index)

  beforeEach(async () => {
    if (!admin.isOpen) await admin.connect()
    prefix = `blocks-${count++}:`
  })
  afterEach(async () => {
    for (const backend of backends.splice(0)) await backend.close()
  })
  afterAll(() => admin.close())

  it('gives the messages of a batch in their order, however many are asked for at once', async () => {
    const backend = open()
    await backend.send(batch('jobs', 1, 100))
    await backend.send(batch('jobs', 101, 101))
    await backend.send(batch('jobs', 102, 140))
    const entries = await admin.lLen(`${prefix}{work}c:jobs`)

    const taken: number[][] = []
    for (const max of [1, 7, 16, 1, 30, 3]) taken.push(numbers(await take(backend, max)))
    const [waiting] = await backend.channels()
    taken.push(numbers(await take(backend, 1_000)))

    expect(entries).toBeLessThan(20)
    expect(taken.map(({ length }) => length)).toEqual([1, 7, 16, 1, 30, 3, 82])
    expect(taken.flat()).toEqual(range(1, 140))
    expect(waiting?.waiting).toBe(82)
    expect(await admin.keys(`${prefix}{work}blocks`)).toEqual([])
  })

  it('carries any content in blocks: bytes, those that are ASCII too, and text of any letters', async () => {
    const backend = open()
    const inbox = await backend.openInbox<string>()
    const reply = inbox.newChannel('ann')
    const contents = [
      { bytes: new TextEncoder().encode('plain: 1{"a":1}') },
      { bytes: new Uint8Array([0, 1, 127]), text: 'b', reply_channel: 'reply.x!1' },
      { bytes: new Uint8Array([255, 0, 128]) },
      { text: 'grüße ÿ \u{1f600} \u2028', reply_channel: 'reply.x!1' },
      { text: 'plain', list: [1, 2.5, null, { deep: true }] },
    ]
    const alone = [contents[0], contents[1]].map((content) => ({ ...content }))
    const both = (channel: string, some: readonly object[]) =>
      some.map((content) => ({ channel, content: content as Content }))

    for (const some of [contents, alone]) {
      await backend.send([...both('jobs', some), ...both(reply, some)])
      const received = await take(backend, 9)
      const replies = await inbox.receive({ max: 9, waitMs: 1_000 })
      expect(received.map(({ content }) => content)).toEqual(some)
      expect(replies.map(({ content }) => content)).toEqual(some)
    }
    await inbox.close()
  })

  it('counts each message of a block against the capacity', async () => {
    const backend = open({ capacity: 20 })
    const first = await backend.send(batch('jobs', 1, 15))
    const second = await backend.send(batch('jobs', 16, 30))
    const taken = numbers(await take(backend, 5))
    const third = await backend.send(batch('jobs', 31, 40))

    expect(first).toEqual([])
    expect(second.map(({ index }) => index)).toEqual(range(5, 14))
    expect(taken).toEqual(range(1, 5))
    expect(third.map(({ index }) => index)).toEqual(range(5, 9))
    expect(numbers(await take(backend, 100))).toEqual([...range(6, 20), ...range(31, 35)])
  })

  it('puts messages of a block back where they were', async () => {
    const backend = open()
    await backend.send(batch('jobs', 1, 12))
    const [one, two, three] = await take(backend, 3)
    await backend.send(batch('jobs', 13, 20))
    if (one && two && three) await backend.handBack([two, one])

    expect(numbers(await take(backend, 100))).toEqual([1, 2, ...range(4, 20)])
  })

  it('gives what came in blocks to who takes lines or holds, who came later', async () => {
    const backend = open()
    await backend.send(batch('jobs', -10, 0))
    await backend.send(batch('jobs', 1, 40))
    // Leaves a single message of a block.
    expect(numbers(await take(backend, 10))).toEqual(range(-10, -1))
    const lines = { channels: ['jobs'], leaseMs: 60_000 }
    const first = await take(backend, 40, { lines })
    await backend.send(batch('jobs', 41, 60))
    const turns = first.flatMap(({ turn }) => turn ?? [])
    const { messages: next } = await backend.advanceLines(turns, {
      channels: ['jobs'],
      leaseMs: 60_000,
    })

    expect(numbers(first)).toEqual([0, 1, 2])
    expect(numbers(next).toSorted((a, b) => a - b)).toEqual([3, 4, 5])
    expect((await backend.channels())[0]?.waiting).toBe(55)

    prefix = `${prefix}held:`
    const holding = open()
    await holding.send(batch('jobs', 1, 40))
    const held = await take(holding, 30, { hold: { channels: ['jobs'], leaseMs: 60_000 } })
    expect(numbers(held)).toEqual(range(1, 30))
    expect(held.every(({ hold }) => hold !== undefined)).toBe(true)
  })

  it('knows the line of a message in a block whatever its content, and keeps no block longer than its count', async () => {
    const backend = open({ expiryMs: 30 * 86_400_000 })
    const texts = ['\ud800', 'a\udc00b', '"reply_channel":"reply.x!2"', '\\ud8', 'é\u{1f600}\u0000']
    await backend.send(
      texts.map((text) => ({ channel: 'jobs', content: { text, reply_channel: 'reply.x!1' } })),
    )
    const ttls = await Promise.all(
      ['blocks', 'c:jobs'].map((key) => admin.pTTL(`${prefix}{work}${key}`)),
    )
    const lines = { channels: ['jobs'], leaseMs: 60_000 }
    const received = await take(backend, 9, { lines })

    expect(ttls[0]).toBeGreaterThan(30 * 86_400_000)
    expect(ttls[1]).toBeGreaterThan(30 * 86_400_000)
    expect(received.map(({ turn }) => turn?.line)).toEqual(['reply.x!1'])
  })

  it('hands nothing to who listens to a server that is no master any more', async () => {
    await using first = await RedisServer.start()
    await using second = await RedisServer.start()
    const isReplica = async (server: RedisServer) =>
      /master_link_status:up/.test(String(await server.command('INFO', 'replication')))
    await second.command('REPLICAOF', '127.0.0.1', String(first.port))
    while (!(await isReplica(second))) await sleep(20)
    const receiver = open({ url: first.url })
    const waiting = receiver.receive(['jobs'], { max: 9, waitMs: 1_500 }).catch(() => [])
    while (Number(await first.command('EXISTS', `${prefix}{work}waiters`)) === 0) await sleep(5)
    await first.command('FAILOVER')
    while (!(await isReplica(first))) await sleep(5)
    const [sender, other] = [open({ url: second.url }), open({ url: second.url })]
    await sender.send(batch('jobs', 1, 2))

    expect([...numbers(await waiting), ...numbers(await take(other, 9))]).toEqual([1, 2])
  }, 60_000)

  it('keeps the order when a receive that waits looks again while something comes', async () => {
    await using server = await RedisServer.start()
    let delayMs = 0
    let onLook = (): void => {}
    const proxy = createServer((client) => {
      const way = connect(server.port, '127.0.0.1')
      for (const socket of [client, way]) socket.setNoDelay(true).on('error', () => {})
      client.on('data', (bytes) => {
        if (bytes.includes('"r":')) onLook()
        void sleep(delayMs).then(() => way.write(bytes))
      })
      way.on('data', (bytes) => client.write(bytes))
      client.on('close', () => way.destroy())
      way.on('close', () => client.destroy())
    }).listen(0, '127.0.0.1')
    await once(proxy, 'listening')
    const { port } = proxy.address() as AddressInfo
    const [sender, receiver] = [
      open({ url: server.url }),
      open({ url: `redis://127.0.0.1:${port}` }),
    ]
    const stop = new AbortController()
    const received: number[] = []
    const reading = (async () => {
      const wait = { max: 10, waitMs: forever, signal: stop.signal }
      for (;;) received.push(...numbers(await receiver.receive(['jobs'], wait)))
    })().catch(() => {})
    while (Number(await server.command('EXISTS', `${prefix}{work}waiters`)) === 0) await sleep(5)

    delayMs = 30
    for (let sent = 0; sent < 8; sent += 4) {
      // A receive looks by itself every two seconds.
      await new Promise<void>((resolve) => {
        onLook = resolve
      })
      for (let number = sent + 1; number <= sent + 4; number++) {
        await sender.send(batch('jobs', number, number))
      }
      await sleep(300)
    }
    delayMs = 0
    while (received.length < 8) await sleep(20)
    stop.abort()
    await reading
    await receiver.close()
    proxy.close()

    expect(received).toEqual(range(1, 8))
  }, 60_000)

  it('closes though the server stands still', async () => {
    await using server = await RedisServer.start()
    const backend = open({ url: server.url, timeoutMs: 500 })
    await backend.open()
    await server.signal('SIGSTOP')
    const closing = backend.close().then(() => 'closed')
    // Nothing else would end the wait before the next look at a quiet connection, after five seconds.
    const end = await Promise.race([closing, sleep(4_000, 'waits')])
    await server.signal('SIGCONT')
    await closing

    expect(end).toBe('closed')
  })

  it('hands a message to who waits, and stores it for nobody', async () => {
    const [sender, receiver] = [open(), open()]
    const waiting = receiver.receive(['other', 'jobs'], { max: 5, waitMs: forever })
    while ((await admin.exists(`${prefix}{work}waiters`)) === 0) await sleep(1)
    await sender.send(batch('jobs', 1, 3))
    const received = await waiting

    expect(numbers(received)).toEqual([1, 2, 3])
    expect(received.map(({ channel }) => channel)).toEqual(['jobs', 'jobs', 'jobs'])
    expect(await admin.exists(`${prefix}{work}channels`)).toBe(0)
    expect([sender.counters.get('sent'), receiver.counters.get('received')]).toEqual([3, 3])
  })

  it('hands nobody more than it takes, and nothing of a channel that is taken in lines', async () => {
    const [sender, receiver] = [open(), open()]
    const few = receiver.receive(['jobs'], { max: 2, waitMs: forever })
    while ((await admin.exists(`${prefix}{work}waiters`)) === 0) await sleep(1)
    await sender.send(batch('jobs', 1, 3))
    expect(numbers(await few)).toEqual([1, 2])
    expect(numbers(await take(receiver, 9))).toEqual([3])

    const lines = { channels: ['jobs'], leaseMs: 60_000 }
    const lined = receiver.receive(['jobs'], { max: 9, waitMs: forever, lines })
    while ((await admin.exists(`${prefix}{work}waiters`)) === 0) await sleep(1)
    await sender.send(batch('jobs', 4, 7))
    const received = await lined
    expect(numbers(received)).toEqual([4, 5, 6])
    expect(received.every(({ turn }) => turn !== undefined)).toBe(true)
  })

  it('passes over a receiver whose process has died', async () => {
    const [sender, dead, receiver] = [open(), open(), open()]
    dead.receive(['jobs'], { max: 9, waitMs: forever }).catch(() => {})
    while ((await admin.exists(`${prefix}{work}waiters`)) === 0) await sleep(1)
    const subscribed = await admin.pubSubChannels(`${prefix}{work}wake:*`)
    // As when its process is killed: its connections end, and it never comes back.
    const clients = String(await admin.sendCommand(['CLIENT', 'LIST', 'TYPE', 'PUBSUB']))
    const waiting = receiver.receive(['jobs'], { max: 9, waitMs: forever })
    while ((await admin.zCard(`${prefix}{work}waiters`)) < 2) await sleep(1)
    for (const [, id] of clients.matchAll(/\bid=(\d+) /g)) {
      if (id) await admin.sendCommand(['CLIENT', 'KILL', 'ID', id])
    }
    await sender.send(batch('jobs', 1, 2))

    expect(subscribed).toHaveLength(1)
    expect(numbers(await waiting)).toEqual([1, 2])
  })

  it('loses and doubles nothing while waits are aborted and backends closed at any moment', async () => {
    const sender = open({ capacity: 100_000 })
    const received: number[] = []
    let sent = 0
    for (let round = 0; round < 60; round++) {
      const receiver = open()
      const stop = new AbortController()
      const wait = { max: 50, waitMs: forever, signal: stop.signal }
      const ended = (async () => {
        for (;;) received.push(...numbers(await receiver.receive(['jobs'], wait)))
      })().catch(() => {})
      if (round % 3 > 0) while ((await admin.exists(`${prefix}{work}waiters`)) === 0) await sleep(1)
      const size = 1 + (round % 4)
      const sending = sender.send(batch('jobs', sent + 1, sent + size))
      sent += size
      for (let turns = round % 7; turns > 0; turns--) await new Promise(setImmediate)
      if (round % 2 === 0) stop.abort()
      else await receiver.close()
      await Promise.all([sending, ended])
      await receiver.close()
    }
    for (;;) {
      const rest = await take(sender, 1_000)
      if (rest.length === 0) break
      received.push(...numbers(rest))
    }

    expect(received.toSorted((a, b) => a - b)).toEqual(range(1, sent))
  })

  it('gives an inbox each message once and in order, whatever changes of membership come between', async () => {
    const [first, second, reader] = [open(), open(), open()]
    const inbox = await reader.openInbox<string>()
    const [ann, bob] = [inbox.newChannel('ann'), inbox.newChannel('bob')]
    await first.groupAdd([{ group: 'all', channel: ann }])
    const received: Record<string, number[]> = { a: [], b: [] }
    let sent = 0
    let isSending = true
    let stalls = 0
    const reading = (async () => {
      while (isSending || (received.a?.length ?? 0) + (received.b?.length ?? 0) < 2 * sent) {
        const waitedFrom = performance.now()
        const deliveries = await inbox.receive({ max: 1 + (sent % 40), waitMs: 4_000 })
        if (performance.now() - waitedFrom > 3_900) stalls++
        for (const { content } of deliveries) {
          received[content.by as string]?.push(content.number as number)
        }
      }
    })()

    // A reader that is not told of something looks by itself only after five seconds.
    for (let round = 0; round < 250; round++) {
      const size = 1 + (round % 5)
      const numbered = Array.from({ length: size }, (_, index) => sent + index)
      sent += size
      const membership = [{ group: `g${round % 3}`, channel: round % 2 ? ann : bob }]
      await Promise.all([
        first.send(numbered.map((number) => ({ channel: ann, content: { by: 'a', number } }))),
        round % 2
          ? second.groupSend(
              numbered.map((number) => ({ group: 'all', content: { by: 'b', number } })),
            )
          : second.send(numbered.map((number) => ({ channel: bob, content: { by: 'b', number } }))),
        round % 7 === 0 ? first.groupAdd(membership) : undefined,
        round % 11 === 0 ? second.groupDiscard(membership) : undefined,
      ])
      if (round % 13 === 0) await sleep(2)
    }
    isSending = false
    await first.send([{ channel: bob, content: { by: 'nobody' } }])
    await reading
    await inbox.close()

    expect(stalls).toBe(0)
    expect(received).toEqual({ a: range(0, sent - 1), b: range(0, sent - 1) })
  })
})
