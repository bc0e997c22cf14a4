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
})
