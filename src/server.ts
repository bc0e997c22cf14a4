import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { ChannelBackend } from './backends/channel-backend.ts'
import type { Config } from './config.ts'
import { asksForWebSocket, serveWithoutUpgrade } from './interface-servers/foreign-upgrade.ts'
import { HttpServer } from './interface-servers/http-server.ts'
import { Hub } from './interface-servers/hub.ts'
import { peerReader } from './interface-servers/peer.ts'
import { PublishServer } from './interface-servers/publish-server.ts'
import {
  type HttpSettings,
  resolveHttpSettings,
  resolveWebSocketSettings,
} from './interface-servers/settings.ts'
import { StaticFiles } from './interface-servers/static-files.ts'
import { refuse, WebSocketServer } from './interface-servers/websocket-server.ts'
import type { Clock } from './internal/clock.ts'
import { resolvePublishSettings } from './publish-settings.ts'
import { Site, setup } from './site.ts'
import { defaultGraceMs, type Worker } from './worker.ts'

export type { HttpSettings, WebSocketSettings } from './interface-servers/settings.ts'
export type { PublishSettings, PublishToken } from './publish-settings.ts'

/** What to attach to a server. */
export interface AttachOptions {
  /** Serve HTTP through channels: every request of the server is taken over. Default false. */
  readonly http?: boolean
  /** Serve WebSockets. Default true. */
  readonly websocket?: boolean
  /** Run a worker in this process too, for every backend of the config. Default false. */
  readonly worker?: boolean
}

/** Interface servers, and perhaps workers, at work on a server. */
export interface AttachedServers {
  /** How many sockets are open. */
  readonly socketCount: number
  /** The channels the workers of this process consume. */
  readonly channels: readonly string[]
  /**
   * Takes over a request for the publish endpoint of the config, on a server whose other requests
   * are not served through channels; with `http` it is served already.
   *
   * @returns false when it is for another path, or there is no such endpoint.
   */
  handlePublish(request: IncomingMessage, response: ServerResponse): boolean
  /** Counts of the interface servers and workers of this process, by name. */
  counters(): Readonly<Record<string, number>>
  /**
   * Answers what is under way, closes the sockets with 1012 some at a time, and stops the workers.
   * The server itself stays the caller's to close.
   */
  close(): Promise<{
    /** Consumers that did not end within the worker's grace. */
    readonly stillRunning: readonly { readonly consumer: string; readonly channel: string }[]
  }>
}

/**
 * Makes a `node:http` server that holds its clients to the settings' limits: the head's size and
 * time, which Node itself looks after. {@link attach} takes any server; on one made elsewhere
 * those limits are that server's own.
 *
 * @throws {ChannelkitError} `ERR_INVALID_CONFIG`
 */
export function createHttpServer(settings?: HttpSettings): Server {
  const { headersMs, maxHeaderBytes } = resolveHttpSettings(settings)
  return createServer({
    maxHeaderSize: maxHeaderBytes,
    headersTimeout: headersMs,
    // Bodies have time limits of their own, which do not count the time a worker takes.
    requestTimeout: 0,
    connectionsCheckingInterval: Math.min(1_000, headersMs),
    insecureHTTPParser: false,
  })
}

/**
 * Attaches Channelkit's interface servers to a `node:http` server.
 *
 * @example
 * ```ts
 * const server = createServer(app)
 * const channels = await attach(server, config, { worker: true })
 * server.listen(3000)
 * ```
 * @param site - a config, or a site from `setup`; a config is set up as the process's site.
 * @throws {ChannelkitError} `ERR_INVALID_CONFIG`, `ERR_CONSUMER_NOT_FOUND`,
 *   `ERR_BACKEND_UNAVAILABLE`
 */
export async function attach(
  server: Server,
  site: Site | Config,
  options: AttachOptions = {},
): Promise<AttachedServers> {
  const isOwnSite = !(site instanceof Site)
  const loaded = site instanceof Site ? site : await setup(site)
  const { http: servesHttp = false, websocket: servesWebSocket = true, worker = false } = options
  const { config, logger, isProduction } = loaded
  const backend = loaded.backend()
  const websocketSettings = resolveWebSocketSettings(config.websocket)
  const httpSettings = resolveHttpSettings(config.http)
  const readPeer = peerReader(httpSettings.trustedProxies)
  const staticFiles =
    config.staticFiles &&
    new StaticFiles(config.staticFiles, { root: loaded.root, isProduction, logger })

  const names = worker ? loaded.backendNames : ['default']
  const workers: Worker[] = []
  const hub = new Hub({ backend, logger, renewal: websocketSettings.renewal })
  try {
    await Promise.all(names.map((name) => loaded.backend(name).open()))
    if (worker) workers.push(...(await Promise.all(names.map((name) => loaded.worker(name)))))
    await Promise.all(workers.map((each) => each.start()))
    await hub.start()
  } catch (error) {
    await Promise.allSettled([...workers.map((each) => each.stop()), hub.stop()])
    if (isOwnSite) await loaded.close()
    throw error
  }
  const channels = workers.flatMap((each) => each.channels)

  let onUpgrade: ((request: IncomingMessage, socket: Socket, head: Buffer) => void) | undefined
  let websocket: WebSocketServer | undefined
  if (servesWebSocket) {
    const sockets = new WebSocketServer({
      hub,
      settings: websocketSettings,
      readPeer,
      isProduction,
    })
    websocket = sockets
    onUpgrade = (request, socket, head) => {
      const isWebSocket = asksForWebSocket(request)
      if (isWebSocket && sockets.serves(request)) sockets.handleUpgrade(request, socket, head)
      // Without another listener it would wait for its answer for ever.
      else if (server.listenerCount('upgrade') > 1) return
      else if (isWebSocket) refuse(socket, 404)
      else if (!serveWithoutUpgrade(server, request, socket, head)) refuse(socket, 400)
    }
    server.on('upgrade', onUpgrade)
  }
  let http: HttpServer | undefined
  if (servesHttp) {
    http = new HttpServer({ hub, settings: httpSettings, readPeer, staticFiles, isProduction })
  }
  const publish =
    config.publish &&
    new PublishServer({
      hub,
      settings: resolvePublishSettings(config.publish),
      declaration: (channel) => loaded.declaration(channel),
      requestMs: httpSettings.requestMs,
    })
  const onRequest = (request: IncomingMessage, response: ServerResponse): void => {
    if (!publish?.serve(request, response)) http?.handleRequest(request, response)
  }
  const onContinue = (request: IncomingMessage, response: ServerResponse): void => {
    if (!publish?.serve(request, response, true)) http?.handleContinue(request, response)
  }
  if (http) {
    server.on('request', onRequest)
    server.on('checkContinue', onContinue)
  }

  return {
    get socketCount() {
      return websocket?.socketCount ?? 0
    },
    channels,
    handlePublish: (request, response) => publish?.serve(request, response) ?? false,
    counters() {
      const total = { ...hub.counters.snapshot() }
      for (const counters of [backend.counters, ...workers.map((each) => each.counters)]) {
        for (const [name, count] of Object.entries(counters.snapshot())) {
          total[name] = (total[name] ?? 0) + count
        }
      }
      return total
    },
    async close() {
      await Promise.all([websocket?.close(), http?.close(), publish?.close()])
      if (onUpgrade) server.off('upgrade', onUpgrade)
      if (http) {
        server.off('request', onRequest)
        server.off('checkContinue', onContinue)
      }
      await Promise.race([hub.outbox.drained(), delay(backend.limits.clock, closeDrainMs)])
      if (!backend.supports.multipleProcesses && workers.length > 0) {
        // Nobody else would ever run what still waits here.
        const waiting = await emptied(backend, channels, config.worker?.graceMs ?? defaultGraceMs)
        if (waiting > 0) hub.counters.add('dropped.shutdown', waiting)
      }
      const stillRunning = (await Promise.all(workers.map((each) => each.stop()))).flat()
      await hub.stop()
      if (isOwnSite) await loaded.close()
      return { stillRunning }
    },
  }
}

// How long the last events of closing sockets may wait for room in their channels.
const closeDrainMs = 5_000

function delay(clock: Clock, delayMs: number): Promise<void> {
  return new Promise((resolve) => {
    clock.schedule(resolve, delayMs)
  })
}

/**
 * Waits until nothing waits on `channels`, or `graceMs` have gone by.
 *
 * @returns how many messages still wait.
 */
async function emptied(
  backend: ChannelBackend,
  channels: readonly string[],
  graceMs: number,
): Promise<number> {
  const mine = new Set(channels)
  const deadline = performance.now() + graceMs
  for (;;) {
    const waiting = (await backend.channels())
      .filter(({ channel }) => mine.has(channel))
      .reduce((sum, { waiting: count }) => sum + count, 0)
    if (waiting === 0 || performance.now() >= deadline) return waiting
    await sleep(emptyCheckMs)
  }
}

const emptyCheckMs = 5
