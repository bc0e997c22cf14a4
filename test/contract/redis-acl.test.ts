import { RedisBackend } from 'channelkit/redis'
import { describeChannelBackend } from 'channelkit/testing'
import { createClient } from 'redis'
import { afterAll, describe, expect, it } from 'vitest'
import { readPage } from '../support/code-blocks.ts'
import { startRedisCluster } from '../support/redis-server.ts'
import { createRedisStore } from '../support/redis-store.ts'
import { startRedis } from '../support/service-process.ts'

const redis = await startRedis()
const page = await readPage('docs/deploying.md')
const rule = (/^ACL SETUSER site .*$/m.exec(page)?.[0] ?? '').split(' ')
const ofCluster = (/^- Redis Cluster needs `(.*)`;$/m.exec(page)?.[1] ?? '').split(' ')

const admin = createClient({ socket: { path: `${redis.folder}/redis.sock`, tls: false } })
await admin.connect()
await admin.sendCommand(rule)
await admin.close()

afterAll(() => redis[Symbol.asyncDispose]())

describeChannelBackend(
  'RedisBackend as the user in docs/deploying.md',
  createRedisStore(redis.folder, { username: 'site', password: 'PASSWORD', prefix: 'site:' }),
)

describe('the user in docs/deploying.md', () => {
  it('does everything on a cluster too', async () => {
    const servers = await startRedisCluster()
    for (const server of servers) await server.command(...rule, ...ofCluster)
    const hosts = servers.map(({ port }) => `127.0.0.1:${port}`).join()
    const url = `redis+cluster://site:PASSWORD@${hosts}`
    const [backend, other] = [1, 2].map(() => new RedisBackend({ url, prefix: 'site:' })) as [
      RedisBackend,
      RedisBackend,
    ]
    const inbox = await backend.openInbox<string>()
    await backend.groupAdd([{ group: 'all', channel: inbox.newChannel('ann') }])
    const waiting = backend.receive(['work'], { max: 1, waitMs: 10_000 })

    await other.send([{ channel: 'work', content: { n: 1 } }])
    await other.groupSend([{ group: 'all', content: { n: 2 } }])

    expect((await waiting).map(({ content }) => content)).toEqual([{ n: 1 }])
    let received = await inbox.receive({ max: 1, waitMs: 5_000 })
    if (received.length === 0) received = await inbox.receive({ max: 1, waitMs: 5_000 })
    expect(received.map(({ content }) => content)).toEqual([{ n: 2 }])
    expect(await other.groups()).toEqual([{ group: 'all', members: 1 }])
    await other.flush()
    expect(await other.groups()).toEqual([])
    await inbox.close()
    await Promise.all([backend.close(), other.close()])
    for (const server of servers) await server[Symbol.asyncDispose]()
  })
})
