import { describeChannelBackend } from 'channelkit/testing'
import { afterAll } from 'vitest'
import { startRedisCluster } from '../support/redis-server.ts'
import { createClusterStore } from '../support/redis-store.ts'

const servers = await startRedisCluster()

afterAll(async () => {
  for (const server of servers) await server[Symbol.asyncDispose]()
})

describeChannelBackend('RedisBackend on a cluster', createClusterStore(servers))
