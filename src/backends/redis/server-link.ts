import { ChannelkitError } from '../../errors.ts'
import { Backoff } from '../../internal/backoff.ts'
import { systemClock } from '../../internal/clock.ts'
import type { ServerClock } from '../server-clock.ts'
import {
  asBytes,
  clientOptions,
  loadRedis,
  type RedisAddress,
  type RedisClient,
} from './redis-client.ts'
import { type RedisLink, type Subscriber, withDoubt } from './redis-link.ts'
import { checkServer, isLostReply, isOutage, replyFault } from './server-check.ts'
import { type Script, scripts } from './wire.ts'

/** How often a quiet server is asked whether it is still there, in milliseconds. */
const heartbeatMs = 5_000
// Least time between two tries to connect, and most: a site is healed soon after its server is back.
const retryMs = { firstMs: 20, longestMs: 500 }

export interface ServerLinkOptions {
  /** Finds the server, anew for each connection. */
  readonly locate: () => Promise<RedisAddress>
  /** What errors call it, without its password. */
  readonly shownAs: string
  /** See `RedisBackendOptions.timeoutMs`. */
  readonly timeoutMs: number
  /** Key under which to try out what the server allows. */
  readonly base: string
  readonly clock: ServerClock
  /** One of a cluster's servers: then a call fails with its connection, for others may serve it. */
  readonly isNode?: boolean
}

/** One connection for calls and one for what is published, which live and end together. */
interface Connection {
  readonly client: RedisClient
  readonly subscriber: RedisClient
  /** When each call under way began, by `performance.now()`, oldest first. */
  readonly calls: Set<{ readonly since: number }>
  stopWatching: () => void
}

interface Waiter {
  readonly resolve: (connection: Connection) => void
  readonly reject: (error: ChannelkitError) => void
}

/**
 * The link to one server, which may be another one after a failover. It reconnects by itself. While
 * there is no connection calls wait for one, for `timeoutMs` from the start of the outage.
 */
export class ServerLink implements RedisLink {
  readonly publish = 'PUBLISH'
  readonly handsOver = true
  readonly timeoutMs: number
  readonly #options: ServerLinkOptions
  readonly #backoff = new Backoff(systemClock, retryMs)
  readonly #subscriptions = new Map<string, Subscriber>()
  readonly #upListeners = new Set<() => void>()
  readonly #downListeners = new Set<(error: ChannelkitError) => void>()
  #connection: Connection | undefined
  #waiters: Waiter[] = []
  #isConnecting = false
  #wasUp = false
  #isAway = false
  #cancelAway: (() => void) | undefined
  #cancelRetry: (() => void) | undefined
  #lastError: unknown
  #isClosed = false

  constructor(options: ServerLinkOptions) {
    this.#options = options
    this.timeoutMs = options.timeoutMs
  }

  async open(): Promise<void> {
    if (!this.#connection) await this.#connected()
  }

  async call<Reply>(
    script: Script,
    base: string,
    args: readonly (string | Buffer)[],
  ): Promise<Reply> {
    return (await this.#ask(['EVALSHA', script.sha, '1', base, ...args], script)) as Reply
  }

  async *keys(start: string): AsyncGenerator<readonly string[]> {
    yield* scan(start, (args) => this.#ask(args))
  }

  async unlink(keys: readonly string[]): Promise<void> {
    if (keys.length > 0) await this.#ask(['UNLINK', ...keys])
  }

  /** Whether the outage has lasted longer than calls wait. */
  get isAway(): boolean {
    return this.#isAway
  }

  /**
   * Tries once.
   *
   * @throws what the client throws, or `ERR_BACKEND_UNAVAILABLE` without a connection.
   */
  async attempt(args: readonly (string | Buffer)[], script?: Script): Promise<unknown> {
    const connection = this.#connection ?? (await this.#connected())
    const call = { since: performance.now() }
    connection.calls.add(call)
    try {
      return await this.#reply(connection, args, script)
    } catch (error) {
      if (isOutage(error)) this.#drop(connection, error)
      throw error
    } finally {
      connection.calls.delete(call)
    }
  }

  async subscribe(channel: string, subscriber: Subscriber): Promise<void> {
    this.#subscriptions.set(channel, subscriber)
    const connection = this.#connection ?? (await this.#connected())
    try {
      await connection.subscriber.subscribe(channel, subscriber, true)
    } catch (error) {
      this.#drop(connection, error)
      throw this.#unavailable(error)
    }
  }

  unsubscribe(channel: string): void {
    this.#subscriptions.delete(channel)
    const { subscriber } = this.#connection ?? {}
    subscriber?.unsubscribe(channel).catch(() => {
      // The connection is lost, and its subscriptions with it.
    })
  }

  async heard(): Promise<void> {
    const connection = this.#connection
    if (!connection) return
    // Among the calls, so that a server which stands still is not waited for without end.
    const call = { since: performance.now() }
    connection.calls.add(call)
    try {
      await connection.subscriber.ping()
    } catch {
      // It is lost, and nothing more comes by it.
    } finally {
      connection.calls.delete(call)
    }
  }

  onUp(listener: () => void): void {
    this.#upListeners.add(listener)
  }

  onDown(listener: (error: ChannelkitError) => void): void {
    this.#downListeners.add(listener)
  }

  async close(): Promise<void> {
    this.#isClosed = true
    this.#cancelRetry?.()
    this.#cancelAway?.()
    const connection = this.#connection
    this.#connection = undefined
    this.#rejectWaiters(this.#unavailable(this.#lastError))
    if (!connection) return
    connection.stopWatching()
    connection.client.destroy()
    connection.subscriber.destroy()
  }

  async #ask(args: readonly (string | Buffer)[], script?: Script): Promise<unknown> {
    const since = performance.now()
    let isWritten = false
    const fault = (error: ChannelkitError): ChannelkitError =>
      isWritten ? withDoubt(error) : error
    for (;;) {
      try {
        return await this.attempt(args, script)
      } catch (error) {
        isWritten ||= isLostReply(error)
        if (!isOutage(error)) throw fault(replyFault(error, this.#options.shownAs))
        const isLate = performance.now() - since >= this.#options.timeoutMs
        if (isLate || this.#isClosed) throw fault(this.#unavailable(error))
      }
    }
  }

  async #reply(
    { client }: Connection,
    args: readonly (string | Buffer)[],
    script: Script | undefined,
  ): Promise<unknown> {
    try {
      return await client.sendCommand(args, asBytes)
    } catch (error) {
      const isUnknown = error instanceof Error && error.message.startsWith('NOSCRIPT')
      if (!isUnknown || !script) throw error
      return client.sendCommand(['EVAL', script.text, ...args.slice(2)], asBytes)
    }
  }

  async #connected(): Promise<Connection> {
    // To read the package may take longer than calls wait.
    if (!this.#wasUp) await loadRedis()
    if (this.#isClosed || this.#isAway) throw this.#unavailable(this.#lastError)
    return new Promise((resolve, reject) => {
      this.#waiters.push({ resolve, reject })
      this.#connectSoon(0)
      this.#cancelAway ??= after(this.#options.timeoutMs, () => this.#goAway())
    })
  }

  /** Calls have waited long enough: from now on they fail at once, until the server is back. */
  #goAway(): void {
    this.#isAway = true
    const error = this.#unavailable(this.#lastError)
    this.#rejectWaiters(error)
    for (const listener of [...this.#downListeners]) listener(error)
  }

  #rejectWaiters(error: ChannelkitError): void {
    for (const { reject } of this.#waiters.splice(0)) reject(error)
  }

  #connectSoon(waitMs: number): void {
    if (this.#isConnecting || this.#cancelRetry || this.#isClosed) return
    this.#cancelRetry = after(waitMs, () => {
      this.#cancelRetry = undefined
      void this.#connect()
    })
  }

  async #connect(): Promise<void> {
    this.#isConnecting = true
    let connection: Connection | undefined
    try {
      connection = await this.#openConnection()
    } catch (error) {
      this.#lastError = error
    }
    this.#isConnecting = false
    if (this.#isClosed) {
      connection?.client.destroy()
      connection?.subscriber.destroy()
      return
    }
    if (!connection) {
      // A wrong address shows at once; a server that was there is waited for.
      if (!this.#wasUp || this.#options.isNode)
        this.#rejectWaiters(this.#unavailable(this.#lastError))
      this.#connectSoon(this.#backoff.nextMs())
      return
    }
    this.#connection = connection
    this.#wasUp = true
    this.#isAway = false
    this.#cancelAway?.()
    this.#cancelAway = undefined
    this.#backoff.succeeded()
    for (const listener of [...this.#upListeners]) listener()
    for (const { resolve } of this.#waiters.splice(0)) resolve(connection)
  }

  async #openConnection(): Promise<Connection> {
    const { locate, timeoutMs, base, shownAs, clock } = this.#options
    const { createClient } = await loadRedis()
    const address = await locate()
    const connectMs = Math.min(timeoutMs, 2_000)
    const clients = [0, 1].map(() => createClient(clientOptions(address, connectMs)))
    const [client, subscriber] = clients as [RedisClient, RedisClient]
    const connection: Connection = { client, subscriber, calls: new Set(), stopWatching: () => {} }
    let cancelDeadline = (): void => {}
    try {
      for (const each of clients) {
        each.on('error', (error) => this.#drop(connection, error))
        each.on('end', (error) => this.#drop(connection, error))
      }
      const late = new Promise<never>((_resolve, reject) => {
        cancelDeadline = systemClock.schedule(
          () => reject(new Error(`no answer within ${connectMs} ms`)),
          connectMs,
        )
      })
      const opening = async (): Promise<void> => {
        await Promise.all(clients.map((each) => each.connect()))
        await checkServer(client, shownAs)
        if (!this.#wasUp && !this.#options.isNode) {
          const { text } = scripts.tryOut
          await client.sendCommand(['EVAL', text, '1', base, '', this.publish]).catch((error) => {
            throw replyFault(error, shownAs)
          })
        }
        await setClock(client, clock)
        for (const [channel, listener] of this.#subscriptions) {
          await subscriber.subscribe(channel, listener, true)
        }
      }
      const opened = opening()
      opened.catch(() => {})
      await Promise.race([opened, late])
    } catch (error) {
      for (const each of clients) destroy(each)
      throw isOutage(error) ? error : replyFault(error, shownAs)
    } finally {
      cancelDeadline()
    }
    this.#watch(connection)
    return connection
  }

  /** Ends a connection on which a call is not answered, and asks now and then on a quiet one. */
  #watch(connection: Connection): void {
    const { timeoutMs, clock } = this.#options
    let beatAt = performance.now() + heartbeatMs
    const look = (): void => {
      connection.stopWatching = systemClock.schedule(look, Math.min(heartbeatMs, timeoutMs / 4))
      const now = performance.now()
      const [oldest] = connection.calls
      if (oldest && now - oldest.since >= timeoutMs) {
        this.#drop(connection, new Error(`no answer within ${timeoutMs} ms`))
        return
      }
      if (now < beatAt) return
      beatAt = now + heartbeatMs
      const call = { since: now }
      connection.calls.add(call)
      Promise.all([setClock(connection.client, clock), connection.subscriber.ping()]).then(
        () => connection.calls.delete(call),
        (error) => this.#drop(connection, error),
      )
    }
    look()
  }

  #drop(connection: Connection, error: unknown): void {
    if (error !== undefined) this.#lastError = error
    if (this.#connection !== connection) return
    this.#connection = undefined
    connection.stopWatching()
    destroy(connection.client)
    destroy(connection.subscriber)
    if (this.#isClosed) return
    this.#cancelAway ??= after(this.#options.timeoutMs, () => this.#goAway())
    this.#connectSoon(this.#backoff.nextMs())
  }

  #unavailable(cause: unknown): ChannelkitError {
    if (cause instanceof ChannelkitError) return cause
    const isTold = cause instanceof Error && cause.message !== ''
    const reason = isTold ? `: ${cause.message}` : ` within ${this.#options.timeoutMs} ms`
    return new ChannelkitError(
      'ERR_BACKEND_UNAVAILABLE',
      `Redis at ${this.#options.shownAs} cannot be reached${reason}; start it, or correct its URL`,
      { cause },
    )
  }
}

/** Asks one server for the keys that begin with a text, in batches. */
export async function* scan(
  start: string,
  ask: (args: readonly string[]) => Promise<unknown>,
): AsyncGenerator<readonly string[]> {
  const pattern = `${start.replace(/[\\*?[\]]/g, '\\$&')}*`
  let cursor = '0'
  do {
    const reply = (await ask(['SCAN', cursor, 'MATCH', pattern, 'COUNT', '1000'])) as [
      Buffer,
      Buffer[],
    ]
    cursor = String(reply[0])
    yield reply[1].map(String)
  } while (cursor !== '0')
}

/** Keeps the process alive, as the connection does that is waited for. */
function after(ms: number, task: () => void): () => void {
  const timer = setTimeout(task, ms)
  return () => clearTimeout(timer)
}

async function setClock(client: RedisClient, clock: ServerClock): Promise<void> {
  const before = performance.now()
  const [seconds, micros] = (await client.sendCommand(['TIME'])) as [string, string]
  clock.set(Number(seconds) * 1_000 + Number(micros) / 1_000, before)
}

/** Of one that is closed already there is nothing to destroy. */
function destroy(client: RedisClient): void {
  try {
    client.destroy()
  } catch {
    // It is closed.
  }
}
