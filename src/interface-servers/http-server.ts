import type { IncomingMessage, ServerResponse } from 'node:http'
import type { OutgoingMessage } from '../backends/channel-backend.ts'
import { errorTable, isChannelkitError } from '../errors.ts'
import { type BodyPart, silentMs } from '../http/client-link.ts'
import { addRequestLender, type LocalRequest, type RequestLender } from '../http/local-requests.ts'
import { partBytesFor } from '../http/part-window.ts'
import { repeat } from '../internal/clock.ts'
import { Roster } from '../internal/roster.ts'
import type { HttpRequest } from '../message-formats.ts'
import { answer, type ExchangeWatcher, HttpExchange, readOff } from './http-exchange.ts'
import type { Hub } from './hub.ts'
import type { PeerReader } from './peer.ts'
import { holdBack } from './pipeline.ts'
import { checkBodyLength, hasBody, RequestBody } from './request-body.ts'
import { requestHead } from './request-head.ts'
import type { ResolvedHttpSettings } from './settings.ts'
import type { StaticFiles } from './static-files.ts'
import { unsupported } from './unsupported.ts'

// How often waiting requests are looked through for those past their time.
const sweepMs = 250
// A client that reads an answer too slowly is cut off beyond this much.
const maxBufferedBytes = 16_777_216
// Streams that are open when the server closes may end by themselves within this time.
const closeStreamMs = 5_000

interface OutgoingRequest {
  readonly exchange: HttpExchange
  readonly message: OutgoingMessage
}

/**
 * Takes HTTP requests, sends each on `http.request` and writes what comes back on its reply
 * channel. No code of the site runs here.
 */
export class HttpServer implements RequestLender {
  readonly #hub: Hub
  readonly #settings: ResolvedHttpSettings
  readonly #readPeer: PeerReader
  readonly #staticFiles: StaticFiles | undefined
  readonly #isProduction: boolean
  readonly #partBytes: number
  /** Requests that wait for a worker or for their body, with the body that is being read. */
  readonly #incoming = new Map<ServerResponse, RequestBody | undefined>()
  readonly #exchanges = new Roster<HttpExchange>()
  /** Those that have ended, of whose answers much is still to be taken. */
  readonly #untaken = new Set<HttpExchange>()
  /** Those given up whose view may not know it yet. */
  readonly #left = new Set<HttpExchange>()
  readonly #watcher: ExchangeWatcher = {
    onEnd: (ended) => this.#forget(ended),
    onUntaken: (ended) => this.#untaken.add(ended),
  }
  /** Requests that were read in this turn of the event loop. */
  #outgoing: OutgoingRequest[] = []
  readonly #stopSweeping: () => void
  readonly #stopLending: () => void
  #closingSince: number | undefined
  #onIdle: (() => void) | undefined

  constructor(options: {
    readonly hub: Hub
    readonly settings: ResolvedHttpSettings
    readonly readPeer: PeerReader
    readonly staticFiles?: StaticFiles | undefined
    readonly isProduction: boolean
  }) {
    this.#hub = options.hub
    this.#settings = options.settings
    this.#readPeer = options.readPeer
    this.#staticFiles = options.staticFiles
    this.#isProduction = options.isProduction
    this.#partBytes = partBytesFor(this.#hub.backend.limits.maxContentBytes)
    this.#stopSweeping = repeat(this.#hub.backend.limits.clock, () => this.#sweep(), sweepMs)
    this.#stopLending = addRequestLender(this.#hub.backend, this)
  }

  lend(replyChannel: string): LocalRequest | undefined {
    const owner = this.#hub.inbox.ownerOf(replyChannel)
    return owner instanceof HttpExchange ? owner.lend() : undefined
  }

  /** Takes over one request; for the `request` event of a `node:http` server. */
  readonly handleRequest = (request: IncomingMessage, response: ServerResponse): void => {
    this.#admit(request, response, false)
  }

  /** The like for `checkContinue`: the client waits for leave to send its body. */
  readonly handleContinue = (request: IncomingMessage, response: ServerResponse): void => {
    this.#admit(request, response, true)
  }

  /**
   * Answers what is under way, up to the longest time an answer may take, and takes nothing more.
   * Requests that have not reached a worker get 503; streams have five seconds to end.
   */
  async close(): Promise<void> {
    this.#closingSince = this.#hub.backend.limits.clock.now()
    for (const response of [...this.#incoming.keys()]) {
      this.#incoming.delete(response)
      unavailable(response, '1', { connection: 'close' })
    }
    if (this.#exchanges.size > 0) {
      await new Promise<void>((resolve) => {
        this.#onIdle = resolve
      })
    }
    this.#stopSweeping()
    this.#stopLending()
    for (const exchange of this.#left) exchange.forget()
    this.#left.clear()
  }

  #admit(request: IncomingMessage, response: ServerResponse, mustContinue: boolean): void {
    // It has the socket already where no answer of its connection is under way.
    if (!response.socket) {
      const take = (): void => this.#take(request, response, mustContinue)
      if (holdBack(request, response, this.#settings.maxPipelined, take)) return
    }
    this.#take(request, response, mustContinue)
  }

  #take(request: IncomingMessage, response: ServerResponse, mustContinue: boolean): void {
    const refusal = unsupported(request)
    if (refusal) {
      this.#hub.counters.add('requests.unsupported')
      answer(response, refusal.status, refusal.text, refusal.headers)
      readOff(request, this.#hub.backend.limits.clock)
      return
    }
    if (this.#staticFiles?.serve(request, response)) return
    if (this.#closingSince !== undefined) {
      unavailable(response, '1', { connection: 'close' })
      return
    }
    try {
      if (!hasBody(request) && this.#hub.consumed.isConsumed('http.request')) {
        this.#begin(request, response, undefined, undefined)
        return
      }
      checkBodyLength(request, this.#settings.maxBodyBytes)
    } catch (error) {
      this.#refuse(request, response, error, mustContinue)
      return
    }
    this.#incoming.set(response, undefined)
    this.#await(request, response, mustContinue)
      .catch((error: unknown) => {
        if (this.#incoming.has(response)) this.#refuse(request, response, error, false)
      })
      .finally(() => this.#incoming.delete(response))
  }

  /** Waits for a worker, then for the body or its first part. */
  async #await(
    request: IncomingMessage,
    response: ServerResponse,
    mustContinue: boolean,
  ): Promise<void> {
    if (!(await this.#hasWorker())) {
      if (!this.#incoming.has(response)) return
      this.#hub.counters.add('requests.no-worker')
      unavailable(response, '5', mustContinue ? { connection: 'close' } : {})
      readOff(request, this.#hub.backend.limits.clock)
      return
    }
    if (!this.#incoming.has(response) || response.destroyed) return
    if (!hasBody(request)) {
      this.#begin(request, response, undefined, undefined)
      return
    }
    if (mustContinue) response.writeContinue()
    const body = new RequestBody(request, {
      clock: this.#hub.backend.limits.clock,
      maxBytes: this.#settings.maxBodyBytes,
      partBytes: this.#partBytes,
    })
    this.#incoming.set(response, body)
    const first = await body.next()
    if (!this.#incoming.has(response)) return
    this.#begin(request, response, first, first.isLast ? undefined : body)
  }

  #begin(
    request: IncomingMessage,
    response: ServerResponse,
    first: BodyPart | undefined,
    body: RequestBody | undefined,
  ): void {
    const peer = this.#readPeer(request)
    const head = requestHead(request, peer)
    const method = request.method ?? 'GET'
    const exchange = new HttpExchange({
      hub: this.#hub,
      request,
      response,
      isLendable: first === undefined && !peer.isForwarded && request.url?.startsWith('/') === true,
      method,
      path: head.path,
      isProduction: this.#isProduction,
      body,
      maxBufferedBytes,
      responseMs: this.#settings.responseMs,
      streamMs: this.#settings.streamMs,
      watcher: this.#watcher,
    })
    this.#exchanges.add(exchange)
    this.#hub.counters.add('requests')
    const content = {
      reply_channel: exchange.replyChannel,
      method,
      scheme: peer.isSecure ? 'https' : 'http',
      http_version: request.httpVersion,
      path: head.path,
      raw_path: head.raw_path,
      query_string: head.query_string,
      get: head.get,
      cookies: head.cookies,
      headers: head.headers,
      client: head.client,
      server: head.server,
      ...(first?.bytes && { body: first.bytes }),
      ...(body && { more_content: true }),
    } satisfies HttpRequest
    this.#send(exchange, content)
  }

  /** Sends a request on, with all others that were read in this turn of the event loop. */
  #send(exchange: HttpExchange, content: HttpRequest): void {
    if (this.#outgoing.length === 0) setImmediate(() => this.#sendAll())
    this.#outgoing.push({
      exchange,
      message: { channel: 'http.request', content, handsOver: true },
    })
  }

  #sendAll(): void {
    const outgoing = this.#outgoing
    this.#outgoing = []
    this.#hub.backend.send(outgoing.map(({ message }) => message)).then(
      (failures) => {
        for (const { index, error } of failures) {
          this.#sendFailed((outgoing[index] as OutgoingRequest).exchange, error)
        }
      },
      (error: unknown) => {
        for (const { exchange } of outgoing) this.#sendFailed(exchange, error)
      },
    )
  }

  #sendFailed(exchange: HttpExchange, error: unknown): void {
    const isOurs = isChannelkitError(error)
    if (!isOurs || error.category === 'programmer') {
      this.#hub.logger.error({ err: error, path: exchange.path }, 'a request could not be sent on')
    }
    this.#hub.counters.add(isOurs ? `requests.${error.code}` : 'requests.failed')
    const status = isOurs ? errorTable[error.code].httpStatus : 500
    exchange.fail(status, status === 503 ? 'Service Unavailable' : 'Internal Server Error', {
      ...(status === 503 && { 'retry-after': '1' }),
    })
    exchange.forget()
    this.#left.delete(exchange)
  }

  async #hasWorker(): Promise<boolean> {
    const { consumed } = this.#hub
    if (consumed.isConsumed('http.request')) return true
    return consumed.awaitConsumer('http.request', this.#settings.workerGapMs)
  }

  /** @param mayNotSend - whether the client waits for leave to send its body, and gets none. */
  #refuse(
    request: IncomingMessage,
    response: ServerResponse,
    error: unknown,
    mayNotSend: boolean,
  ): void {
    if (isChannelkitError(error) && error.category === 'client') {
      this.#hub.counters.add(`requests.${error.code}`)
      const { httpStatus } = errorTable[error.code]
      const isFramed = error.code === 'ERR_REQUEST_TOO_LARGE' && !mayNotSend
      answer(response, httpStatus, error.message, isFramed ? {} : { connection: 'close' })
      readOff(request, this.#hub.backend.limits.clock)
      return
    }
    if (request.destroyed) return
    this.#hub.logger.error({ err: error }, 'a request failed')
    answer(response, 500, 'Internal Server Error')
  }

  #sweep(): void {
    const now = this.#hub.backend.limits.clock.now()
    for (const [response, body] of this.#incoming) {
      if (!this.#isLate(body, now)) continue
      this.#incoming.delete(response)
      this.#hub.counters.add('requests.slow-body')
      answer(response, 408, 'Request Timeout', { connection: 'close' })
    }
    for (const exchange of this.#untaken) {
      if (exchange.response.writableFinished || exchange.isDisconnected) {
        this.#untaken.delete(exchange)
      } else if (this.#isUntaken(exchange, now)) {
        exchange.cutOff()
      }
    }
    for (const exchange of this.#exchanges.all()) {
      if (exchange.isDisconnected) {
        exchange.clientLeft()
      } else if (exchange.hasBegun && this.#isUntaken(exchange, now)) {
        exchange.cutOff()
      } else if (this.#isLate(exchange.body, now)) {
        this.#hub.counters.add('requests.slow-body')
        exchange.fail(408, 'Request Timeout')
      } else if (exchange.body?.waitingSince !== undefined) {
        // It waits for its client, not for an answer.
      } else if (now - exchange.movedAt >= exchange.patienceMs || this.#mustCut(exchange, now)) {
        this.#hub.counters.add(exchange.hasBegun ? 'requests.cut' : 'requests.timed-out')
        exchange.fail(504, 'Gateway Timeout')
      }
    }
    for (const exchange of this.#left) {
      if (now - exchange.movedAt < silentMs) break
      this.#left.delete(exchange)
      exchange.forget()
    }
  }

  #isLate(body: RequestBody | undefined, now: number): boolean {
    return body?.waitingSince !== undefined && now - body.waitingSince >= this.#settings.requestMs
  }

  #isUntaken(exchange: HttpExchange, now: number): boolean {
    const since = exchange.untakenSince(now)
    return since !== undefined && now - since >= this.#settings.drainMs
  }

  #mustCut(exchange: HttpExchange, now: number): boolean {
    return (
      this.#closingSince !== undefined &&
      exchange.hasBegun &&
      now - this.#closingSince >= closeStreamMs
    )
  }

  #forget(exchange: HttpExchange): void {
    this.#exchanges.delete(exchange)
    if (exchange.isLeft) {
      exchange.movedAt = this.#hub.backend.limits.clock.now()
      this.#left.add(exchange)
    }
    if (this.#exchanges.size === 0) this.#onIdle?.()
  }
}

function unavailable(
  response: ServerResponse,
  retryAfter: string,
  headers: Readonly<Record<string, string>> = {},
): void {
  answer(response, 503, 'Service Unavailable', { 'retry-after': retryAfter, ...headers })
}
