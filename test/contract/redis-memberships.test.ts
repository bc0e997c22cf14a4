import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { RedisBackend } from 'channelkit/redis'
import { FakeClock } from 'channelkit/testing'
import { createClient } from 'redis'
import { afterAll, describe, expect, it } from 'vitest'
import { startProxy } from '../support/proxy.ts'
import { redisUrlIn } from '../support/redis-store.ts'
import { startRedis } from '../support/service-process.ts'

const redis = await startRedis()

afterAll(() => redis[Symbol.asyncDispose]())

/** An interface server behind a proxy, and a worker that reaches the server by itself. */
async function startSite(prefix: string) {
  const proxy = await startProxy(join(redis.folder, 'redis.sock'))
  const url = `redis://127.0.0.1:${proxy.port}`
  const server = new RedisBackend({ url, prefix, timeoutMs: 1_000 })
  const worker = new RedisBackend({ url: redisUrlIn(redis.folder), prefix })
  const inbox = await server.openInbox<string>({ renewal: 'auto' })
  const stop = new AbortController()
  const heard: (readonly string[])[] = []
  const receiving = (async () => {
    while (!stop.signal.aborted) {
      try {
        const deliveries = await inbox.receive({ max: 10, waitMs: 60_000, signal: stop.signal })
        for (const delivery of deliveries) if ('owners' in delivery) heard.push(delivery.owners)
      } catch {
        await sleep(20)
      }
    }
  })()
  return {
    proxy,
    worker,
    inbox,
    /** Who gets a message to the group that is sent now. */
    async tell(group: string): Promise<readonly string[]> {
      const before = heard.length
      await worker.groupSend([{ group, content: {} }])
      const deadline = Date.now() + 2_000
      while (heard.length === before && Date.now() < deadline) await sleep(10)
      return [...(heard[before] ?? [])].sort()
    },
    async close() {
      stop.abort(new Error('enough'))
      await receiving
      await Promise.all([server.close(), worker.close()])
      await proxy.close()
    },
  }
}

describe('RedisBackend', () => {
  it('makes changes of membership good that were lost with a connection', async () => {
    const { proxy, worker, inbox, tell, close } = await startSite('lost:')
    const alice = inbox.newChannel('alice')
    const bob = inbox.newChannel('bob')
    await worker.groupAdd([{ group: 'room', channel: alice }])
    const first = await tell('room')
    await sleep(100)

    proxy.silence()
    await worker.groupDiscard([{ group: 'room', channel: alice }])
    await sleep(100)
    await worker.groupAdd([{ group: 'room', channel: bob }])
    const mend = await proxy.cut()
    await mend()
    await sleep(1_000)
    await inbox.renew()

    expect(first).toEqual(['alice'])
    expect(await tell('room')).toEqual(['bob'])
    expect(await worker.groupChannels('room')).toEqual([bob])
    await close()
  })

  it('makes what the server lost good, however often that is cut short', async () => {
    const prefix = 'cut:'
    const { worker, inbox, close } = await startSite(prefix)
    const admin = createClient({ socket: { path: join(redis.folder, 'redis.sock'), tls: false } })
    await admin.connect()
    const cut = async (): Promise<void> => {
      for (const type of ['normal', 'pubsub']) {
        await admin.sendCommand(['CLIENT', 'KILL', 'TYPE', type, 'SKIPME', 'yes'])
      }
    }
    const channel = inbox.newChannel('alice')
    await worker.groupAdd([{ group: 'room', channel }])
    const meta = `${prefix}{${inbox.name}}meta`
    while (inbox.membershipCount === 0) await sleep(10)

    // The server loses everything, and the inbox is open again before the rest fails.
    await admin.del(await admin.keys(`${prefix}*`))
    await admin.set(`${prefix}{work}inboxes`, 'no sorted set')
    await cut()
    while ((await admin.exists(meta)) === 0) await sleep(10)
    await sleep(300)
    const between = await worker.groupChannels('room')
    await admin.del(`${prefix}{work}inboxes`)
    await cut()
    await sleep(1_500)

    expect(between).toEqual([])
    expect(await worker.groupChannels('room')).toEqual([channel])
    await admin.close()
    await close()
  })

  it('makes changes good of which the answer was lost that had taken them', async () => {
    const { proxy, worker, inbox, tell, close } = await startSite('taken:')
    const alice = inbox.newChannel('alice')
    const bob = inbox.newChannel('bob')
    const group = 'room'
    await worker.groupAdd([{ group, channel: alice }])
    await tell(group)
    await worker.groupDiscard([{ group, channel: alice }])
    await worker.groupAdd([{ group, channel: alice }])
    await sleep(100)
    await inbox.renew()
    const readded = await worker.groupChannels(group)

    proxy.silence()
    const looking = inbox.renew().catch(() => {})
    await worker.groupDiscard([{ group, channel: alice }])
    await worker.groupAdd([{ group, channel: bob }])
    await sleep(1_100)
    const mend = await proxy.cut()
    await mend()
    await looking
    await sleep(500)

    expect(readded).toEqual([alice])
    expect(await tell(group)).toEqual(['bob'])
    await close()
  })

  it('stores a marked batch never twice, also when it comes again behind a long outage', async () => {
    const prefix = 'doubt:'
    const proxy = await startProxy(join(redis.folder, 'redis.sock'))
    const clock = new FakeClock()
    const url = `redis://127.0.0.1:${proxy.port}`
    const sender = new RedisBackend({ url, prefix, clock, timeoutMs: 500 })
    const worker = new RedisBackend({ url: redisUrlIn(redis.folder), prefix, clock })
    const send = (n: number) =>
      sender.send([{ channel: 'a', content: { n } }], { mark: { sender: 'me', number: n } })
    await sender.open()

    proxy.silence()
    await expect(send(1)).rejects.toMatchObject({ code: 'ERR_BACKEND_UNAVAILABLE' })
    const mend = await proxy.cut()
    await clock.advance(59_000)
    await expect(send(1)).rejects.toMatchObject({ code: 'ERR_BACKEND_UNAVAILABLE' })
    await clock.advance(1_000)
    await expect(send(1)).rejects.toMatchObject({ code: 'ERR_BATCH_IN_DOUBT' })
    await expect(send(2)).rejects.toMatchObject({ code: 'ERR_BACKEND_UNAVAILABLE' })
    await clock.advance(120_000)
    await mend()
    await sleep(1_000)

    expect(await send(2)).toEqual([])
    const found = await worker.receive(['a'], { max: 9, waitMs: 0 })
    expect(found.map(({ content }) => content.n)).toEqual([2])
    await Promise.all([sender.close(), worker.close()])
    await proxy.close()
  })
})
