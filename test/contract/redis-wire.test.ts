import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { RedisBackend } from 'channelkit/redis'
import { createClient } from 'redis'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { scripts } from '../../src/backends/redis/wire.ts'
import { readPage } from '../support/code-blocks.ts'
import { redisUrlIn } from '../support/redis-store.ts'
import { startRedis } from '../support/service-process.ts'

const redis = await startRedis()
const admin = createClient({ socket: { path: join(redis.folder, 'redis.sock'), tls: false } })

beforeAll(() => admin.connect())
afterAll(async () => {
  await admin.close()
  await redis[Symbol.asyncDispose]()
})

const types: Readonly<Record<string, string>> = {
  list: 'list',
  hash: 'hash',
  string: 'string',
  'sorted set': 'zset',
}

/** Suffix behind a base, as the page describes it → type. */
async function describedKeys(): Promise<ReadonlyMap<RegExp, string>> {
  const page = await readPage('docs/redis-wire.md')
  const rows = [...page.matchAll(/^\| `([^`]+)` \| ([a-z ]+) \| .* \| .* \|$/gm)]
  return new Map(
    rows.flatMap(([, key = '', type = '']) =>
      types[type] === undefined
        ? []
        : [[new RegExp(`^${key.replace(/[A-Z]+$/, '.+')}$`, 's'), types[type]] as const],
    ),
  )
}

describe('docs/redis-wire.md', () => {
  it('has every key of a site at work, with its type, and each has a time to live', async () => {
    const described = await describedKeys()
    const prefix = 'wire:'
    const backend = new RedisBackend({ url: redisUrlIn(redis.folder), prefix })
    const info = { kind: 'worker', host: 'h', pid: 1, startedAt: 1, channels: ['a'] } as const
    await backend.announce({ id: 'w1', ...info }, 60_000)
    const inbox = await backend.openInbox<string>()
    const reply = inbox.newChannel('ann')
    await backend.groupAdd(
      ['chat {x}!', 'other'].flatMap((group) => [
        { group, channel: reply },
        { group, channel: 'work' },
      ]),
    )
    await inbox.receive({ max: 9, waitMs: 0 })
    const deliverAt = Date.now() + 60_000
    await backend.send([{ channel: 'elsewhere', content: {}, deliverAt }])
    const message = { channel: 'lined', content: { reply_channel: reply } }
    await backend.send([{ ...message, channel: 'elsewhere' }, message, message, message])
    const many = { channel: 'many', content: {} }
    await backend.send([many, many])
    await backend.send([{ channel: reply, content: {} }])
    await backend.groupSend([{ group: 'chat {x}!', content: {} }])
    const lines = { channels: ['lined'], elsewhere: ['elsewhere'], leaseMs: 60_000 }
    await backend.receive(['lined'], { max: 1, waitMs: 0, lines })
    await backend.receive(['lined'], { max: 1, waitMs: 0, lines })
    const stop = new AbortController()
    const waiting = backend.receive(['nothing'], {
      max: 1,
      waitMs: Number.POSITIVE_INFINITY,
      signal: stop.signal,
    })
    while ((await admin.exists(`${prefix}{work}waiters`)) === 0) await Promise.resolve()

    const met = new Set<string>()
    const strange: string[] = []
    for (const key of await admin.keys('*')) {
      const suffix = /^wire:\{.*?[^}]\}(?<suffix>[^}]*)$/s.exec(key)?.groups?.suffix ?? key
      const type = await admin.type(key)
      const row = [...described].find(([pattern]) => pattern.test(suffix))
      if (row?.[1] !== type) strange.push(`${key} is a ${type}`)
      else met.add(row[0].source)
      if ((await admin.pTTL(key)) <= 0) strange.push(`${key} lives for ever`)
    }

    expect(strange).toEqual([])
    expect(
      [...described.keys()].map(({ source }) => source).filter((each) => !met.has(each)),
    ).toEqual([])
    stop.abort(new Error('enough'))
    await expect(waiting).rejects.toThrow('enough')
    await backend.close()
  })

  it('is right that a list which was drained and filled again has a time to live', async () => {
    const prefix = 'drained:'
    const backend = new RedisBackend({ url: redisUrlIn(redis.folder), prefix })
    const inbox = await backend.openInbox<string>()
    const reply = inbox.newChannel('ann')
    const ends = { expiresAt: Date.now() + 30_000 }
    const group = [{ group: 'g', channel: reply }]
    const fill: readonly (() => Promise<unknown>)[] = [
      () => backend.send([{ channel: 'a', content: {} }]),
      () => backend.send(['a', 'b'].map((channel) => ({ channel, content: {}, ...ends }))),
      () => backend.send([{ channel: reply, content: {} }]),
      () => backend.send([{ channel: reply, content: {}, ...ends }]),
      () => backend.groupAdd(group),
    ]
    const strange: string[] = []

    for (const again of [false, true]) {
      for (const [place, each] of fill.entries()) {
        await each()
        for (const key of await admin.keys(`${prefix}*`)) {
          if ((await admin.pTTL(key)) <= 0) strange.push(`${again} ${place} ${key}`)
        }
        const taken = await backend.receive(['a', 'b'], { max: 9, waitMs: 0 })
        await inbox.receive({ max: 9, waitMs: 0 })
        await backend.handBack(taken.slice(0, 1))
        for (const key of await admin.keys(`${prefix}*`)) {
          if ((await admin.pTTL(key)) <= 0) strange.push(`behind ${again} ${place} ${key}`)
        }
        await backend.receive(['a', 'b'], { max: 9, waitMs: 0 })
      }
    }

    expect(strange).toEqual([])
    await backend.close()
  })
})

describe('RedisBackend', () => {
  it('tells the outcome of an order that was carried out, also when it comes again too late', async () => {
    const order = { s: 'me', n: 1, p: 0, c: ['a'], k: [1], x: 60_000, l: 1, u: 'PUBLISH' }
    const send = (more: object) =>
      admin.eval(scripts.send.text, {
        keys: ['again:{work}'],
        arguments: ['', JSON.stringify({ ...order, ...more }), '0::1{}', '0::1{}'],
      })

    const first = await send({})

    expect(await send({ d: 1 })).toEqual([expect.any(String), 0, '2f'])
    expect(first).toEqual([expect.any(String), 0, '2f'])
    expect(await send({ d: 1, n: 2 })).toEqual([expect.any(String), 0, 'late'])
  })

  it('wakes nobody who has taken a message by a look of its own', async () => {
    const prefix = 'looks:'
    const backend = new RedisBackend({ url: redisUrlIn(redis.folder), prefix })
    const waiting = backend.receive(['rare'], { max: 1, waitMs: 10_000 })
    while ((await admin.exists(`${prefix}{work}waiters`)) === 0) await sleep(10)

    await admin.rPush(`${prefix}{work}c:rare`, `${'1'.repeat(16)}:${'8'.repeat(16)}:0::1{"n":1}`)

    expect(await waiting).toMatchObject([{ content: { n: 1 } }])
    expect(await admin.exists(`${prefix}{work}waiters`)).toBe(0)
    await backend.close()
  })

  it('forgets the waiters of dead processes, and more dead inboxes than one script can take', async () => {
    const prefix = 'dead:'
    const backend = new RedisBackend({ url: redisUrlIn(redis.folder), prefix })
    const waiting = backend.receive(['rare'], { max: 1, waitMs: 10_000 })
    const waiters = `${prefix}{work}waiters`
    while ((await admin.exists(waiters)) === 0) await sleep(10)
    await admin.eval(scripts.claim.text, {
      keys: [`${prefix}{work}`],
      arguments: ['', JSON.stringify({ c: ['rare'], m: 1, w: 'gone/0', u: 'PUBLISH' })],
    })
    const both = await admin.zCard(waiters)
    const inboxes = Array.from({ length: 9_000 }, (_, n) => ({ score: 1, value: `reply.${n}!` }))
    await admin.zAdd(`${prefix}{work}inboxes`, inboxes)

    await backend.cleanUp()

    expect(both).toBe(2)
    expect(await admin.zRange(waiters, 0, -1)).toEqual([expect.not.stringContaining('gone/0')])
    expect(await admin.zCard(`${prefix}{work}inboxes`)).toBe(0)
    await backend.send([{ channel: 'rare', content: { n: 1 } }])
    expect(await waiting).toMatchObject([{ content: { n: 1 } }])
    await backend.close()
  })

  it('counts and flushes what is left of a block, and takes no more than is asked for', async () => {
    const prefix = 'blocks:'
    const inboxCapacity = 500
    const backend = new RedisBackend({ url: redisUrlIn(redis.folder), prefix, inboxCapacity })
    const inbox = await backend.openInbox<string>()
    const channel = inbox.newChannel('ann')
    const send = async (count: number) =>
      backend.send(Array.from({ length: count }, (_, n) => ({ channel, content: { n } })))

    await send(3)
    await inbox.receive({ max: 1, waitMs: 0 })
    const infos = await backend.channels()
    await backend.flush()

    expect(infos).toMatchObject([{ channel: inbox.name, waiting: 2 }])
    expect(infos[0]?.oldestExpiresAt).toBeGreaterThan(Date.now())
    expect(await inbox.receive({ max: 9, waitMs: 0 })).toEqual([])
    for (let blocks = 0; blocks < 100; blocks++) await send(5)
    expect(await inbox.receive({ max: 7, waitMs: 0 })).toHaveLength(7)
    expect(await send(11)).toHaveLength(1)
    await backend.close()
  })

  it('touches nothing outside of its prefix, whatever names are made of', async () => {
    const prefix = 'monitored:'
    const lines: string[] = []
    const monitor = admin.duplicate()
    await monitor.connect()
    await monitor.monitor((line) => lines.push(String(line)))
    const backend = new RedisBackend({ url: redisUrlIn(redis.folder), prefix })
    const inbox = await backend.openInbox<string>()
    const reply = inbox.newChannel('ann')
    const groups = [
      '{other}',
      '}{',
      'a\r\nFLUSHALL\r\n',
      '"\'\0',
      ') redis.call("FLUSHALL") --',
      '%s[!]',
      'é🎈',
    ]

    await backend.groupAdd(groups.map((group) => ({ group, channel: reply })))
    await backend.groupSend(groups.map((group) => ({ group, content: { group } })))
    const met = new Set<unknown>()
    while (met.size < groups.length) {
      for (const { content } of await inbox.receive({ max: 10, waitMs: 1_000 }))
        met.add(content.group)
    }
    const channels = await Promise.all(groups.map((group) => backend.groupChannels(group)))
    await backend.send([{ channel: 'a', content: { reply_channel: '{x}\r\n%s' } }])
    await backend.receive(['a'], { max: 1, waitMs: 0, lines: { channels: ['a'], leaseMs: 1_000 } })
    await backend.flush()
    const left = (await admin.keys('*')).filter((key) => key.startsWith(`${prefix}{g:`))
    await inbox.close()
    await backend.close()
    monitor.destroy()

    expect(channels).toEqual(groups.map(() => [reply]))
    const withoutKey = /^"(?:INFO|SELECT|PING|TIME|SCAN|MONITOR)"/i
    const outside = lines
      .map((line) => line.replace(/^[\d.]+ \[.*?\] /, ''))
      .filter((line) => !withoutKey.test(line) && !/^"keys"/i.test(line))
      .map((line) => line.replace(/^("EVAL(?:SHA)?") ".*?(?<!\\)" "1" /, '$1 '))
      .filter((line) => !/^"[a-zA-Z]+" (?:"NUMSUB" )?"monitored:/.test(line))
    expect(left).toEqual([])
    expect(lines.length).toBeGreaterThan(100)
    expect(outside).toEqual([])
  })
})
