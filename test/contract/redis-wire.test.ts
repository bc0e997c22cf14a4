import { join } from 'node:path'
import { RedisBackend } from 'channelkit/redis'
import { createClient } from 'redis'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
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
      .filter((line) => !/^"[a-zA-Z]+" "monitored:/.test(line))
    expect(left).toEqual([])
    expect(lines.length).toBeGreaterThan(100)
    expect(outside).toEqual([])
  })
})
