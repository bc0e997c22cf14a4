import { rename } from 'node:fs/promises'
import { join } from 'node:path'
import { RedisBackend, type RedisBackendOptions } from 'channelkit/redis'
import type { TestStore } from 'channelkit/testing'
import { createClient } from 'redis'
import type { RedisServer } from './redis-server.ts'

let stores = 0

/** The URL of the Redis that listens on `redis.sock` in a folder. */
export function redisUrlIn(folder: string): string {
  return `redis+unix://${join(folder, 'redis.sock')}`
}

/**
 * A store on a prefix of its own, behind the one in `settings`. Its connection is cut by moving the socket away and ending every
 * connection that is open.
 */
export function createRedisStore(
  folder: string,
  settings: Partial<RedisBackendOptions> = {},
): () => Promise<TestStore> {
  return async () => {
    stores++
    const prefix = `${settings.prefix ?? ''}test-${process.pid}-${stores}:`
    return {
      open: async (options) =>
        new RedisBackend({
          ...settings,
          ...options,
          url: redisUrlIn(folder),
          prefix,
          timeoutMs: 1_000,
        }),
      async breakConnection() {
        const socket = join(folder, 'redis.sock')
        const admin = createClient({ socket: { path: socket, tls: false } })
        await admin.connect()
        await rename(socket, `${socket}.aside`)
        for (const type of ['normal', 'pubsub']) {
          await admin.sendCommand(['CLIENT', 'KILL', 'TYPE', type, 'SKIPME', 'yes'])
        }
        return async () => {
          await rename(`${socket}.aside`, socket)
          await admin.close()
        }
      },
      dispose: async () => {},
    }
  }
}

/** A store on a cluster, whose connection is cut by stopping its servers. */
export function createClusterStore(servers: readonly RedisServer[]): () => Promise<TestStore> {
  const hosts = servers.map(({ port }) => `127.0.0.1:${port}`)
  return async () => {
    stores++
    const prefix = `test-${process.pid}-${stores}:`
    const url = `redis+cluster://${hosts.join(',')}`
    return {
      open: async (options) => new RedisBackend({ ...options, url, prefix, timeoutMs: 1_000 }),
      async breakConnection() {
        for (const server of servers) await server.signal('SIGSTOP')
        return async () => {
          for (const server of servers) await server.signal('SIGCONT')
        }
      },
      dispose: async () => {},
    }
  }
}
