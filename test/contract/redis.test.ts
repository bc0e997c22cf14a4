import { describeChannelBackend } from 'channelkit/testing'
import { afterAll } from 'vitest'
import { createRedisStore } from '../support/redis-store.ts'
import { startRedis } from '../support/service-process.ts'

const redis = await startRedis()

afterAll(() => redis[Symbol.asyncDispose]())

describeChannelBackend('RedisBackend', createRedisStore(redis.folder))
