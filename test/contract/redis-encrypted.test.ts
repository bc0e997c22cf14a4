import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { defineConfig, defineRouting, setup } from 'channelkit'
import { RedisBackend } from 'channelkit/redis'
import { describeChannelBackend } from 'channelkit/testing'
import { createClient, RESP_TYPES } from 'redis'
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createRedisStore, redisUrlIn } from '../support/redis-store.ts'
import { startRedis } from '../support/service-process.ts'

const redis = await startRedis()
const [oldKey, newKey] = [randomBytes(32), randomBytes(32)]

afterAll(() => redis[Symbol.asyncDispose]())

describeChannelBackend(
  'RedisBackend with encryption',
  createRedisStore(redis.folder, { encryption: { keys: [newKey] } }),
)

describe('encryption in Redis', () => {
  let prefix = ''
  let count = 0
  const backends: RedisBackend[] = []
  const admin = createClient({ socket: { path: join(redis.folder, 'redis.sock'), tls: false } })
  const bytes = admin.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer })
  const open = (...keys: Buffer[]) => {
    const options = { url: redisUrlIn(redis.folder), prefix, timeoutMs: 1_000 }
    const backend = new RedisBackend({ ...options, ...(keys[0] && { encryption: { keys } }) })
    backends.push(backend)
    return backend
  }
  const take = async (backend: RedisBackend, channel: string) =>
    (await backend.receive([channel], { max: 10, waitMs: 0 })).map(({ content }) => content)
  const list = (channel: string) => `${prefix}{work}c:${channel}`

  beforeEach(async () => {
    if (!admin.isOpen) await admin.connect()
    prefix = `encrypted-${count++}:`
  })
  afterEach(async () => {
    for (const backend of backends.splice(0)) await backend.close()
  })
  afterAll(() => admin.close())

  it('leaves nothing of the content to be read, whatever it came by', async () => {
    const backend = open(newKey)
    const inbox = await backend.openInbox<string>()
    const reply = inbox.newChannel('ann')
    const secret = 'whisper-7f3a'
    const content = { content: secret, bytes: Buffer.from(secret), reply_channel: reply }
    await backend.groupAdd([
      { group: 'clear-group', channel: reply },
      { group: 'clear-group', channel: 'clear-member' },
    ])
    await backend.send([
      { channel: 'clear-work', content },
      { channel: reply, content },
    ])
    await backend.groupSend([{ group: 'clear-group', content }])

    let stored = ''
    for (const key of await admin.keys(`${prefix}*`)) {
      stored += key + (await bytes.dump(key))?.toString('latin1')
    }

    for (const name of ['clear-group', 'clear-member', 'clear-work']) expect(stored).toContain(name)
    const queue = `${prefix}{${inbox.name}}q`
    const inQueue = (await bytes.lRange(queue, 0, -1)).map((each) => each.toString('latin1'))
    const onChannels = await Promise.all(
      ['clear-work', 'clear-member'].map((channel) => bytes.lRange(list(channel), 0, -1)),
    )
    const all = stored + inQueue.join() + onChannels.flat().map((each) => each.toString('latin1'))
    expect([
      inQueue.filter((entry) => /^[mg]/.test(entry)).length,
      onChannels.flat().length,
    ]).toEqual([2, 2])
    expect(all).not.toContain(secret)
    expect(all).not.toContain(Buffer.from(secret).toString('base64'))
    const [direct, grouped] = await inbox.receive({ max: 10, waitMs: 1_000 })
    expect([direct?.content.content, grouped?.content.content]).toEqual([secret, secret])
    expect((await take(backend, 'clear-member'))[0]?.bytes).toEqual(new Uint8Array(content.bytes))
    await inbox.close()
  })

  it('goes on while the keys are exchanged', async () => {
    const [before, during, after] = [open(oldKey), open(newKey, oldKey), open(newKey)]
    await before.send([{ channel: 'a', content: { by: 'old' } }])
    await during.send([{ channel: 'a', content: { by: 'new' } }])

    const [first] = await during.receive(['a'], { max: 1, waitMs: 0 })
    await during.handBack(first ? [first] : [])

    expect(await take(after, 'a')).toEqual([{ by: 'old' }, { by: 'new' }])
  })

  it('drops and counts what has another key, none, or lies elsewhere, and goes on', async () => {
    const backend = open(newKey)
    await open(oldKey).send([{ channel: 'a', content: { by: 'another' } }])
    await open().send([{ channel: 'a', content: { by: 'none' } }])
    await backend.send([{ channel: 'b', content: { to: 'b' } }])
    await admin.lMove(list('b'), list('a'), 'LEFT', 'RIGHT')
    await backend.send([{ channel: 'a', content: { is: 'good' } }])

    expect(await take(backend, 'a')).toEqual([{ is: 'good' }])
    expect(backend.counters.get('dropped.undecryptable')).toBe(3)
  })

  it('drops a group message that was moved to another group', async () => {
    const backend = open(newKey)
    const inbox = await backend.openInbox<string>()
    await backend.groupAdd([{ group: 'a', channel: inbox.newChannel('ann') }])
    await inbox.receive({ max: 10, waitMs: 0 })
    await backend.groupSend([{ group: 'a', content: {} }])
    const queue = `${prefix}{${inbox.name}}q`
    const [entry] = await bytes.lRange(queue, 0, -1)
    const moved = Buffer.from(entry as Buffer)
    expect(moved.toString('latin1', 17, 20)).toBe('1:a')
    await backend.groupAdd([{ group: 'b', channel: inbox.newChannel('ben') }])
    moved.write('b', 19)
    await admin.rPush(queue, moved)

    const received = await inbox.receive({ max: 10, waitMs: 0 })

    expect(received.map(({ group }) => group)).toEqual(['a'])
    expect(backend.counters.get('dropped.undecryptable')).toBe(1)
    await inbox.close()
  })

  it('lets a worker live that finds changed bytes, and says so once', async () => {
    const lines: string[] = []
    const log = (_facts: object, message: string) => lines.push(message)
    const logger = { debug() {}, info() {}, warn: log, error: log }
    const ran: unknown[] = []
    const backend = open(newKey)
    const routing = defineRouting({ jobs: ({ content }) => void ran.push(content.number) })
    const config = defineConfig({ channelBackends: { default: { backend, routing } } })
    const site = await setup(config, { logger })
    for (const number of [1, 2, 3]) await backend.send([{ channel: 'jobs', content: { number } }])
    for (const index of [0, 1]) {
      const entry = await bytes.lIndex(list('jobs'), index)
      const changed = Buffer.from(entry as Buffer)
      changed[changed.length - 20] = Number(changed[changed.length - 20]) ^ 1
      await admin.lSet(list('jobs'), index, changed)
    }
    const worker = await site.worker()

    await worker.start()
    for (let tries = 0; ran.length === 0 && tries < 200; tries++) await sleep(20)
    await backend.send([{ channel: 'jobs', content: { number: 4 } }])
    for (let tries = 0; ran.length === 1 && tries < 200; tries++) await sleep(20)
    await worker.stop()
    await site.close()

    expect(ran).toEqual([3, 4])
    expect(backend.counters.get('dropped.undecryptable')).toBe(2)
    expect(lines).toHaveLength(1)
    expect(lines[0]).toContain('was not encrypted with a key of this process')
  })
})
