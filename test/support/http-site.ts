import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type RequestListener, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Config, Logger, Routing } from 'channelkit'
import { Site } from 'channelkit'
import type { BackendOptions, ChannelBackend } from 'channelkit/backend'
import { MemoryBackend } from 'channelkit/memory'
import { RedisBackend } from 'channelkit/redis'
import { type AttachedServers, attach, createHttpServer } from 'channelkit/server'
import { SqliteBackend } from 'channelkit/sqlite'
import { afterAll } from 'vitest'
import { redisUrlIn } from './redis-store.ts'
import { startRedis } from './service-process.ts'

/**
 * What carries the messages of a site under test. But with `memory` the worker has a backend of its
 * own, as in another process, so that requests and answers go through the channels whole.
 */
export type Carrier = 'memory' | 'sqlite' | 'redis'
export const carriers: readonly Carrier[] = ['memory', 'sqlite', 'redis']

/** One for all sites of a test file, each of which has a prefix of its own. */
let redis: ReturnType<typeof startRedis> | undefined
let redisSites = 0

afterAll(async () => (await redis)?.[Symbol.asyncDispose]())

export interface ServedSite {
  readonly port: number
  readonly server: Server
  readonly servers: AttachedServers
  readonly backend: ChannelBackend
  /** What was logged as an error or a warning. */
  readonly log: {
    readonly level: string
    readonly facts: Record<string, unknown>
    readonly message: string
  }[]
  [Symbol.asyncDispose](): Promise<void>
}

/** Serves a site on a real port: interface server and worker, with a backend between them. */
export async function serveSite(
  carrier: Carrier,
  { routing, ...config }: Omit<Config, 'channelBackends'> & { readonly routing?: Routing },
  options: {
    readonly worker?: boolean
    readonly backend?: BackendOptions
    /** Where it listens. Default 127.0.0.1. */
    readonly host?: string
  } = {},
): Promise<ServedSite> {
  const folder =
    carrier === 'sqlite' ? await mkdtemp(join(tmpdir(), 'channelkit-http-')) : undefined
  const openBackend = await backendOpener(carrier, folder, options.backend)
  const backend = openBackend()
  const log: ServedSite['log'] = []
  const note =
    (level: string) =>
    (facts: object, message: string): void => {
      log.push({ level, facts: { ...facts }, message })
    }
  const logger: Logger = { debug() {}, info() {}, warn: note('warn'), error: note('error') }
  const load = (own: ChannelBackend): Promise<Site> =>
    Site.load(
      { ...config, channelBackends: { default: { backend: own, ...(routing && { routing }) } } },
      { logger },
    )
  const site = await load(backend)
  const server = createHttpServer(config.http)
  const hasWorker = options.worker ?? true
  const workerSite = hasWorker && carrier !== 'memory' ? await load(openBackend()) : undefined
  const worker = await workerSite?.worker()
  await worker?.start()
  const servers = await attach(server, site, { http: true, worker: hasWorker && !worker })
  const port = await listening(server, options.host)
  return {
    port,
    server,
    servers,
    backend,
    log,
    async [Symbol.asyncDispose]() {
      server.close()
      server.closeAllConnections()
      await servers.close()
      await worker?.stop()
      await workerSite?.close()
      await site.close()
      if (folder !== undefined) await rm(folder, { recursive: true })
    },
  }
}

async function backendOpener(
  carrier: Carrier,
  folder: string | undefined,
  options: BackendOptions | undefined,
): Promise<() => ChannelBackend> {
  if (carrier === 'memory') return () => new MemoryBackend(options)
  if (folder !== undefined) {
    return () => new SqliteBackend({ ...options, file: join(folder, 'channels.sqlite') })
  }
  redis ??= startRedis()
  const url = redisUrlIn((await redis).folder)
  const prefix = `http-${process.pid}-${++redisSites}:`
  return () => new RedisBackend({ ...options, url, prefix })
}

/** Serves a handler as it is served without Channelkit. */
export async function serveDirectly(handler: RequestListener): Promise<{
  readonly port: number
  [Symbol.asyncDispose](): Promise<void>
}> {
  const server = createServer(handler)
  const port = await listening(server)
  return {
    port,
    async [Symbol.asyncDispose]() {
      server.close()
      server.closeAllConnections()
    },
  }
}

async function listening(server: Server, host = '127.0.0.1'): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, host, resolve))
  return (server.address() as AddressInfo).port
}
