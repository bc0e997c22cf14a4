import { RedisServer, startRedisCluster } from './redis-server.ts'

/** Where each test gets a prefix of its own. */
export interface RedisPlace {
  /** The URL of a backend on an empty prefix. */
  newUrl(): Promise<string>
  [Symbol.asyncDispose](): Promise<void>
}

/** A server and a cluster, started anew, by the name they have in the names of tests. */
export const redisPlaces: Readonly<Record<string, () => Promise<RedisPlace>>> = {
  async Redis() {
    return placeOf([await RedisServer.start()], 'redis')
  },
  async 'a Redis Cluster'() {
    return placeOf(await startRedisCluster(), 'redis+cluster')
  },
}

function placeOf(servers: readonly RedisServer[], protocol: string): RedisPlace {
  const hosts = servers.map(({ port }) => `127.0.0.1:${port}`).join(',')
  let count = 0
  return {
    newUrl: async () => `${protocol}://${hosts}?prefix=test${++count}:`,
    async [Symbol.asyncDispose]() {
      for (const server of servers) await server[Symbol.asyncDispose]()
    },
  }
}
