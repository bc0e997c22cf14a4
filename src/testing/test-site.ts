import { createServer, request as httpRequest, type IncomingMessage, type Server } from 'node:http'
import { Readable } from 'node:stream'
import { WebSocket } from 'ws'
import type { BackendOptions } from '../backends/channel-backend.ts'
import { MemoryBackend } from '../backends/memory/memory-backend.ts'
import { Channel } from '../channel.ts'
import type { ContentOf } from '../channel-types.ts'
import type { ChannelBackendConfig, Config } from '../config.ts'
import { loadConfigFile } from '../config-file.ts'
import { currentSite, type SiteHandle, setCurrentSite } from '../current-site.ts'
import { ChannelkitError } from '../errors.ts'
import { Group } from '../group.ts'
import { systemClock } from '../internal/clock.ts'
import type { Logger } from '../logger.ts'
import { type Message, ReceivedMessage } from '../message.ts'
import type { Address } from '../message-formats.ts'
import type { Routing } from '../routing.ts'
import { type AttachedServers, attach } from '../server.ts'
import { Site } from '../site.ts'
import type { Worker } from '../worker.ts'
import { FakeClock } from './fake-clock.ts'
import { TestSocket, type TestSocketSite } from './test-socket.ts'
import { newWire, type Wire } from './wire.ts'

/** A site's config, or its parts with the default backend's routing in place of `channelBackends`. */
export interface TestSiteConfig extends Config {
  readonly routing?: Routing | string
}

export interface TestSiteOptions {
  /** The folder that references and relative files start from. Default the working directory. */
  readonly root?: string
  /** Limits of the memory backends: capacities, expiries. */
  readonly backend?: Omit<BackendOptions, 'clock'>
  /** Default a new one. */
  readonly clock?: FakeClock
  /** Is told what the site logs, besides `log`. */
  readonly logger?: Logger
  /**
   * Whether workers run. Without them everything clients do waits on its channel, for `receive` to
   * take. Default true.
   */
  readonly workers?: boolean
  /**
   * How much real time consumers may take before a wait for them fails, in milliseconds. Default
   * 2,000.
   */
  readonly patienceMs?: number
}

/** What a client's handshake carries. */
export interface ConnectOptions {
  /**
   * `origin` is the site's own by default, as a browser's is; an undefined one is left out.
   */
  readonly headers?: Readonly<Record<string, string | undefined>>
  readonly cookies?: Readonly<Record<string, string>>
  readonly subprotocols?: readonly string[]
  /** Where the client seems to connect from. Default a port of 127.0.0.1. */
  readonly client?: Address
}

/** One line of the site's log. */
export interface LogRecord {
  readonly level: 'debug' | 'info' | 'warn' | 'error'
  readonly facts: Readonly<Record<string, unknown>>
  readonly message: string
}

// More turns of the event loop than any step between client and consumer waits for nothing.
const stillTurns = 6
// After so many turns, a consumer that still runs waits for something real: look less often.
const eagerTurns = 500

/**
 * A whole site without a port and without waiting: real interface servers and workers, joined to
 * its clients by wires of memory, on a memory backend whose clock the test advances.
 *
 * It is the process's current site, so `Channel` and `Group` reach it, until it is closed.
 *
 * @example
 * ```ts
 * await using site = await TestSite.open({ routing: channelRouting })
 * const [ann, ben] = [await site.connect('/kitchen'), await site.connect('/kitchen')]
 * ann.send('hello')
 * expect(await ben.next()).toBe('hello')
 * ```
 */
export class TestSite {
  readonly clock: FakeClock
  readonly #site: Site
  readonly #server: Server
  readonly #servers: AttachedServers
  readonly #workers: readonly Worker[]
  readonly #log: LogRecord[]
  readonly #errors: Error[]
  readonly #patienceMs: number
  readonly #previous: SiteHandle | undefined
  readonly #wires = new Set<Wire>()
  readonly #sockets = new Set<TestSocket>()
  readonly #forSockets: TestSocketSite = {
    settle: (isDone) => this.#settle(isDone),
    failure: (message) => this.#failure(message),
    noteArrival: () => {
      this.#arrivals++
    },
  }
  #arrivals = 0
  #clientPort = 49_152
  #closing: Promise<void> | undefined

  private constructor(parts: {
    readonly clock: FakeClock
    readonly site: Site
    readonly server: Server
    readonly servers: AttachedServers
    readonly workers: readonly Worker[]
    readonly log: LogRecord[]
    readonly errors: Error[]
    readonly patienceMs: number
    readonly previous: SiteHandle | undefined
  }) {
    this.clock = parts.clock
    this.#site = parts.site
    this.#server = parts.server
    this.#servers = parts.servers
    this.#workers = parts.workers
    this.#log = parts.log
    this.#errors = parts.errors
    this.#patienceMs = parts.patienceMs
    this.#previous = parts.previous
  }

  /**
   * Loads a site and starts its interface servers and workers.
   *
   * @param config - a config, its parts, or the path of a config file. Each of its backends is
   *   replaced by a memory backend.
   * @throws {ChannelkitError} what `setup` and `attach` throw.
   */
  static async open(
    config: TestSiteConfig | string = {},
    options: TestSiteOptions = {},
  ): Promise<TestSite> {
    const clock = options.clock ?? new FakeClock()
    const log: LogRecord[] = []
    const errors: Error[] = []
    const logger = recorder(log, errors, options.logger)
    const { config: given, root } = await found(config, options.root)
    const site = await Site.load(onMemory(given, { ...options.backend, clock }), {
      ...(root !== undefined && { root }),
      logger,
    })
    const previous = currentSite.optional()
    setCurrentSite(site)
    try {
      const names = options.workers === false ? [] : site.backendNames
      const workers = await Promise.all(names.map((name) => site.worker(name)))
      await Promise.all(workers.map((worker) => worker.start()))
      const server = createServer()
      const servers = await attach(server, site, { http: true })
      const patienceMs = options.patienceMs ?? 2_000
      return new TestSite({
        clock,
        site,
        server,
        servers,
        workers,
        log,
        errors,
        patienceMs,
        previous,
      })
    } catch (error) {
      setCurrentSite(previous)
      await site.close()
      throw error
    }
  }

  /** What the site logged, oldest first. */
  get log(): readonly LogRecord[] {
    return this.#log
  }

  /** What consumers threw and what else was logged as an error, less what was expected. */
  get errors(): readonly Error[] {
    return this.#errors
  }

  /** Counts of the interface servers, workers and backends, by name. */
  counters(): Readonly<Record<string, number>> {
    const total = { ...this.#servers.counters() }
    for (const name of this.#site.backendNames) {
      if (name !== 'default') addTo(total, this.#site.backend(name).counters.snapshot())
    }
    for (const worker of this.#workers) addTo(total, worker.counters.snapshot())
    return total
  }

  /**
   * Opens a socket, and lets the consumers of its handshake run.
   *
   * @param path - path and query, or a whole URL: with `wss:` the client seems to speak TLS.
   */
  async connect(path: string, options: ConnectOptions = {}): Promise<TestSocket> {
    const url = new URL(path, 'ws://localhost')
    const isSecure = url.protocol === 'wss:' || url.protocol === 'https:'
    const headers = {
      origin: `${isSecure ? 'https' : 'http'}://${url.host}`,
      ...(options.cookies && { cookie: cookieHeader(options.cookies) }),
      ...options.headers,
    }
    const wire = this.#newWire(options.client, isSecure)
    const client = new WebSocket(
      `ws://${url.host}${url.pathname}${url.search}`,
      [...(options.subprotocols ?? [])],
      {
        headers: withoutUndefined(headers),
        createConnection: (() => wire.client) as never,
        perMessageDeflate: false,
      },
    )
    const socket = new TestSocket(this.#forSockets, client, url.pathname + url.search)
    this.#sockets.add(socket)
    await this.#settle()
    return socket
  }

  /**
   * Makes a request and gives its answer, as soon as its head is there.
   *
   * @param target - path and query, a whole URL, or a `Request`.
   * @throws when no answer comes although nothing is left to run: without a consumer of
   *   `http.request`, say. What waits for the clock may be let through by `advance` meanwhile.
   */
  async request(
    target: string | Request,
    init: RequestInit & { readonly client?: Address } = {},
  ): Promise<Response> {
    const request =
      typeof target === 'string'
        ? new Request(new URL(target, 'http://localhost'), init)
        : new Request(target, init)
    const url = new URL(request.url)
    const wire = this.#newWire(init.client, url.protocol === 'https:')
    // Not the new request's signal, which may be collected as garbage with it.
    const signal = init.signal ?? (typeof target === 'string' ? undefined : target.signal)
    const exchange = exchangeOver(wire, request, url, signal)
    const answer = exchange.then((response) => {
      this.#arrivals++
      return response
    })
    const stalled = this.#stalls(answer, `${request.method} ${url.pathname}`)
    return await Promise.race([answer, stalled])
  }

  /** A channel of the site; like `Channel`, also where another site is the current one. */
  channel<const Name extends string>(name: Name): Channel<ContentOf<Name>> {
    return Channel(name, { backend: this.#site.backend() })
  }

  /** A group of the site. */
  group(name: string): Group {
    return Group(name, { backend: this.#site.backend() })
  }

  /**
   * Lets everything run, and takes the messages that then wait on a channel without a consumer,
   * oldest first.
   *
   * @throws when a consumer has the channel, since it has taken them.
   */
  async receive<const Name extends string>(
    name: Name,
    options: { readonly backend?: string } = {},
  ): Promise<readonly Message<Name>[]> {
    const backend = this.#site.backend(options.backend)
    if (this.#workers.length > 0 && (await this.#site.routing(options.backend)).has(name)) {
      throw this.#failure(`channel ${name} has a consumer, which takes its messages`)
    }
    await this.#settle()
    const incoming = await backend.receive([name], { max: 10_000, waitMs: 0 })
    return incoming.map((each) => new ReceivedMessage(each, backend) as Message<string>) as never
  }

  /**
   * Lets everything run until no consumer does and nothing moves. What waits for the clock stays.
   *
   * @throws when consumers still run after `patienceMs`, naming them.
   */
  async drain(): Promise<void> {
    if (!(await this.#settle())) throw this.#failure('the site is still busy')
  }

  /** Lets everything run, moves time on by `ms`, and lets run what that set going. */
  async advance(ms: number): Promise<void> {
    await this.#still()
    await this.clock.advance(ms)
    await this.#still()
  }

  /**
   * Lets everything run, and takes the oldest error whose message has `text`, so that `close` does
   * not reject with it.
   *
   * @throws when there is none.
   */
  async expectError(text: string | RegExp = ''): Promise<Error> {
    await this.#settle()
    const index = this.#errors.findIndex(({ message }) =>
      typeof text === 'string' ? message.includes(text) : text.test(message),
    )
    const [error] = index === -1 ? [] : this.#errors.splice(index, 1)
    if (error) return error
    throw this.#failure(text === '' ? 'no error came' : `no error came with ${String(text)}`)
  }

  /**
   * Ends the sockets as a browser does that is closed, lets their consumers run, stops everything,
   * and makes the site before it the current one again.
   *
   * @throws the first error that was not expected; or one naming consumers that never ended.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  /**
   * Turns the event loop until `isDone`, or until no consumer runs and nothing moves.
   *
   * @returns false when it was still busy after `patienceMs`.
   */
  async #settle(isDone: () => boolean = () => false): Promise<boolean> {
    const deadline = performance.now() + this.#patienceMs
    let before = Number.NaN
    let still = 0
    for (let turns = 0; still < stillTurns; turns++) {
      if (isDone()) return true
      if (performance.now() > deadline) return false
      await (turns > eagerTurns ? moment() : turn())
      const now = this.#activity()
      still = now === before && this.#runningCount === 0 ? still + 1 : 0
      before = now
    }
    return true
  }

  /** An error that says what did not happen, and what the site is doing instead. */
  #failure(message: string): Error {
    const running = this.#workers.flatMap((worker) => worker.running)
    const state =
      running.length > 0
        ? `${running.map(({ consumer, channel }) => `${consumer} on ${channel}`).join(', ')} still running`
        : 'nothing is running'
    const [cause] = this.#errors
    const hint = cause ? `; the first error was: ${cause.message}` : ''
    return new Error(`${message}; ${state}${hint}`, cause && { cause })
  }

  async #close(): Promise<void> {
    let stillRunning: readonly { readonly consumer: string; readonly channel: string }[]
    try {
      await Promise.all(
        [...this.#sockets]
          .filter((socket) => socket.accepted && !socket.closed)
          .map((socket) => socket.close(1001)),
      )
      for (const { client } of this.#wires) client.destroy()
      await this.#settle()
      await this.#letTimePass(this.#servers.close())
      this.#server.close()
      const stopped = await this.#letTimePass(
        Promise.all(this.#workers.map((worker) => worker.stop())),
      )
      stillRunning = stopped.flat()
      await this.#site.close()
    } finally {
      setCurrentSite(this.#previous)
    }
    const [error] = this.#errors
    if (error) throw error
    if (stillRunning.length > 0) throw this.#failure('the site is closed while busy')
  }

  /** Moves the clock on until `work` is done, whose waits nothing else would end. */
  async #letTimePass<T>(work: Promise<T>): Promise<T> {
    let isDone = false
    const mark = (): void => {
      isDone = true
    }
    work.then(mark, mark)
    await this.#still()
    while (!isDone) await this.clock.advance(1_000)
    return work
  }

  /** Turns the event loop until nothing moves, though consumers may wait for something. */
  async #still(): Promise<void> {
    let before = Number.NaN
    for (let still = 0; still < stillTurns; ) {
      await turn()
      const now = this.#activity()
      still = now === before ? still + 1 : 0
      before = now
    }
  }

  /** A number that changes with whatever the site does. */
  #activity(): number {
    let total = this.#arrivals + this.clock.now()
    for (const count of Object.values(this.counters())) total += count
    return total + this.#runningCount / 1_000_000
  }

  get #runningCount(): number {
    let count = 0
    for (const worker of this.#workers) count += worker.runningCount
    return count
  }

  /** Rejects when `answer` does not come although nothing moves. */
  async #stalls(answer: Promise<unknown>, what: string): Promise<never> {
    let isDone = false
    const mark = (): void => {
      isDone = true
    }
    answer.then(mark, mark)
    let seen: number
    do {
      seen = this.#activity()
      await new Promise<void>((resolve) => systemClock.schedule(resolve, this.#patienceMs))
    } while (!isDone && this.#activity() !== seen)
    if (isDone || this.#closing !== undefined) return new Promise<never>(() => {})
    throw this.#failure(`no answer came to ${what}`)
  }

  #newWire(client: Address = ['127.0.0.1', this.#clientPort++], isSecure: boolean): Wire {
    const wire = newWire(client, isSecure)
    this.#wires.add(wire)
    wire.client.once('close', () => this.#wires.delete(wire))
    this.#server.emit('connection', wire.server)
    return wire
  }
}

function exchangeOver(
  wire: Wire,
  request: Request,
  url: URL,
  signal: AbortSignal | undefined,
): Promise<Response> {
  return new Promise((resolve, reject) => {
    const outgoing = httpRequest({
      createConnection: () => wire.client,
      host: url.hostname,
      method: request.method,
      path: url.pathname + url.search,
      headers: { host: url.host, ...Object.fromEntries(request.headers) },
    })
    outgoing.on('response', (incoming) => resolve(responseOf(incoming)))
    outgoing.on('error', reject)
    signal?.addEventListener('abort', () => outgoing.destroy(signal.reason))
    request.arrayBuffer().then((body) => outgoing.end(new Uint8Array(body)), reject)
  })
}

function responseOf(incoming: IncomingMessage): Response {
  const headers = new Headers()
  for (let index = 0; index < incoming.rawHeaders.length; index += 2) {
    headers.append(incoming.rawHeaders[index] as string, incoming.rawHeaders[index + 1] as string)
  }
  const status = incoming.statusCode ?? 200
  const hasBody = ![101, 204, 205, 304].includes(status)
  if (!hasBody) incoming.resume()
  const body = hasBody ? (Readable.toWeb(incoming) as ReadableStream<Uint8Array>) : null
  return new Response(body, { status, statusText: incoming.statusMessage ?? '', headers })
}

async function found(
  config: TestSiteConfig | string,
  root: string | undefined,
): Promise<{ readonly config: TestSiteConfig; readonly root: string | undefined }> {
  if (typeof config !== 'string') return { config, root }
  const loaded = await loadConfigFile(config)
  return { config: loaded.config, root: root ?? loaded.root }
}

function onMemory(config: TestSiteConfig, options: BackendOptions): Config {
  const { routing, channelBackends, ...rest } = config
  if (routing !== undefined && channelBackends !== undefined) {
    throw new ChannelkitError(
      'ERR_INVALID_CONFIG',
      'a test site is given routing and channelBackends; leave out routing, which stands for that of the default backend',
    )
  }
  const backends: Record<string, ChannelBackendConfig> = {}
  const given = channelBackends ?? { default: routing === undefined ? {} : { routing } }
  for (const [name, entry] of Object.entries(given)) {
    backends[name] = { ...entry, backend: new MemoryBackend(options) }
  }
  return { ...rest, channelBackends: backends }
}

function recorder(log: LogRecord[], errors: Error[], next: Logger | undefined): Logger {
  const record =
    (level: LogRecord['level']) =>
    (facts: object, message: string): void => {
      log.push({ level, facts: { ...facts }, message })
      if (level === 'error') {
        const err: unknown = 'err' in facts ? facts.err : undefined
        errors.push(err instanceof Error ? err : new Error(messageOf(message, err)))
      }
      next?.[level](facts, message)
    }
  return {
    debug: record('debug'),
    info: record('info'),
    warn: record('warn'),
    error: record('error'),
  }
}

function messageOf(message: string, err: unknown): string {
  return typeof err === 'object' && err !== null && 'message' in err
    ? `${message}: it threw ${String(err.message)}`
    : message
}

function cookieHeader(cookies: Readonly<Record<string, string>>): string {
  return Object.entries(cookies)
    .map(([name, value]) => `${name}=${encodeURIComponent(value)}`)
    .join('; ')
}

function withoutUndefined(
  headers: Readonly<Record<string, string | undefined>>,
): Record<string, string> {
  const kept: Record<string, string> = {}
  for (const [name, value] of Object.entries(headers)) if (value !== undefined) kept[name] = value
  return kept
}

function addTo(total: Record<string, number>, counts: Readonly<Record<string, number>>): void {
  for (const [name, count] of Object.entries(counts)) total[name] = (total[name] ?? 0) + count
}

/** One turn of the event loop, by whose end every settled promise has been carried on. */
function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}

/** A real millisecond, for consumers that wait for files or databases. */
function moment(): Promise<void> {
  return new Promise((resolve) => systemClock.schedule(resolve, 1))
}
