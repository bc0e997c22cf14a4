import { setTimeout as sleep } from 'node:timers/promises'
import type { ReceiveOptions } from 'channelkit/backend'
import { RedisBackend } from 'channelkit/redis'
import { afterEach, describe, expect, it } from 'vitest'
import { RedisServer } from '../support/redis-server.ts'

let server: RedisServer | undefined

afterEach(async () => {
  await server?.[Symbol.asyncDispose]()
})

const content = { text: 'x'.repeat(10_000) }
const mostMessages = 2_000

/** Sends until it is refused; returns how many went in. */
async function fill(send: () => Promise<unknown>): Promise<{ count: number; error: unknown }> {
  for (let count = 0; count < mostMessages; count++) {
    try {
      await send()
    } catch (error) {
      return { count, error }
    }
  }
  throw new Error('nothing was refused')
}

describe('a Redis whose memory is full', () => {
  it('refuses sends, gives what it has, and takes more when there is room', async () => {
    server = await RedisServer.start('--maxmemory', '6mb', '--maxmemory-policy', 'noeviction')
    const backend = new RedisBackend({ url: server.url, capacity: mostMessages })

    const { count, error } = await fill(() => backend.send([{ channel: 'a', content }]))

    expect(error).toMatchObject({ code: 'ERR_BACKEND_UNAVAILABLE' })
    expect(String(error)).toContain('raise its maxmemory')
    expect(count).toBeGreaterThan(100)
    const received: unknown[] = []
    while (received.length < count) {
      received.push(...(await backend.receive(['a'], { max: 100, waitMs: 0 })))
    }
    expect(received).toHaveLength(count)
    expect(await backend.send([{ channel: 'a', content }])).toEqual([])
    expect(await backend.receive(['a'], { max: 100, waitMs: 0 })).toHaveLength(1)
    await backend.close()
  })

  it('still deletes what has expired', async () => {
    server = await RedisServer.start('--maxmemory', '6mb', '--maxmemory-policy', 'noeviction')
    const backend = new RedisBackend({ url: server.url })
    const inbox = await backend.openInbox<string>()
    const expiresAt = Date.now() + 300
    const ann = inbox.newChannel('ann')
    for (const channel of ['a', ann, 'b']) {
      await backend.send([
        { channel, content: {}, expiresAt },
        { channel, content: {} },
      ])
    }
    // Of these nothing expires any more.
    await backend.receive(['a'], { max: 1, waitMs: 0 })
    await inbox.receive({ max: 1, waitMs: 0 })
    await sleep(500)
    await server.command('CONFIG', 'SET', 'maxmemory', '1')

    expect(await backend.cleanUp()).toBe(1)
    expect(await backend.cleanUp()).toBe(0)
    await backend.close()
  })

  it('still gives turns, holds and what lies in blocks, and deletes blocks that have expired', async () => {
    server = await RedisServer.start('--maxmemory', '6mb', '--maxmemory-policy', 'noeviction')
    const backend = new RedisBackend({ url: server.url, expiryMs: 1_000 })
    const lasting = new RedisBackend({ url: server.url, prefix: 'lasting:' })
    const inbox = await backend.openInbox<string>()
    const many = (channel: string) =>
      Array.from({ length: 20 }, () => ({ channel, content: { reply_channel: 'reply.x!1' } }))
    await backend.send(many(inbox.newChannel('ann')))
    for (const channel of ['plain', 'held', 'lined']) await lasting.send(many(channel))
    await server.command('CONFIG', 'SET', 'maxmemory', '1')
    const take = async (channel: string, options: Partial<ReceiveOptions>) =>
      (await lasting.receive([channel], { max: 7, waitMs: 0, ...options })).length

    expect(await take('plain', {})).toBe(7)
    expect(await take('held', { hold: { channels: ['held'], leaseMs: 60_000 } })).toBe(7)
    expect(await take('lined', { lines: { channels: ['lined'], leaseMs: 60_000 } })).toBe(1)
    await sleep(1_500)
    await backend.cleanUp()
    expect(backend.counters.get('dropped.expired')).toBe(20)
    await Promise.all([backend.close(), lasting.close()])
  })

  it('refuses messages to groups, and sockets get what came before', async () => {
    server = await RedisServer.start('--maxmemory', '6mb', '--maxmemory-policy', 'noeviction')
    const backend = new RedisBackend({ url: server.url, inboxCapacity: mostMessages })
    const inbox = await backend.openInbox<string>()
    await backend.groupAdd([{ group: 'all', channel: inbox.newChannel('ann') }])

    const { count, error } = await fill(() => backend.groupSend([{ group: 'all', content }]))

    expect(error).toMatchObject({ code: 'ERR_BACKEND_UNAVAILABLE' })
    let delivered = 0
    while (delivered < count) {
      delivered += (await inbox.receive({ max: 100, waitMs: 1_000 })).length
    }
    expect(delivered).toBe(count)
    await inbox.close()
    await backend.close()
  })
})
