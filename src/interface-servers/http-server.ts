import type { IncomingMessage, ServerResponse } from 'node:http'
import { errorTable, isChannelkitError } from '../errors.ts'
import { repeat } from '../internal/clock.ts'
import { answer, HttpExchange } from './http-exchange.ts'
import type { Hub } from './hub.ts'
import type { PeerReader } from './peer.ts'
import { readBody } from './request-body.ts'
import { requestHead } from './request-head.ts'
import type { ResolvedHttpSettings } from './settings.ts'
import type { StaticFiles } from './static-files.ts'

// How often waiting requests are looked through for those past their time.
const sweepMs = 250
// A client that reads an answer too slowly is cut off beyond this much.
const maxBufferedBytes = 16_777_216

/**
 * Takes HTTP requests, sends each on `http.request` and writes what comes back on its reply
 * channel. No code of the site runs here.
 */
export class HttpServer {
  readonly #hub: Hub
  readonly #settings: ResolvedHttpSettings
  readonly #readPeer: PeerReader
  readonly #staticFiles: StaticFiles | undefined
  /** In the order in which they began, so the oldest is first. */
  readonly #exchanges = new Set<HttpExchange>()
  readonly #stopSweeping: () => void
  #isClosing = false
  #onIdle: (() => void) | undefined

  constructor(options: {
    readonly hub: Hub
    readonly settings: ResolvedHttpSettings
    readonly readPeer: PeerReader
    readonly staticFiles?: StaticFiles | undefined
  }) {
    this.#hub = options.hub
    this.#settings = options.settings
    this.#readPeer = options.readPeer
    this.#staticFiles = options.staticFiles
    this.#stopSweeping = repeat(this.#hub.backend.limits.clock, () => this.#sweep(), sweepMs)
  }

  /** Takes over one request; for the `request` event of a `node:http` server. */
  readonly handleRequest = (request: IncomingMessage, response: ServerResponse): void => {
    if (this.#staticFiles?.serve(request, response)) return
    this.#handle(request, response).catch((error: unknown) =>
      this.#refuse(request, response, error),
    )
  }

  /** Answers what is under way, up to the longest time an answer may take, and takes nothing more. */
  async close(): Promise<void> {
    this.#isClosing = true
    if (this.#exchanges.size > 0) {
      await new Promise<void>((resolve) => {
        this.#onIdle = resolve
      })
    }
    this.#stopSweeping()
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (this.#isClosing) {
      answer(response, 503, 'Service Unavailable', { 'retry-after': '1', connection: 'close' })
      return
    }
    const head = requestHead(request, this.#readPeer)
    const { isSecure } = this.#readPeer(request)
    const body = await readBody(request, this.#settings.maxBodyBytes)
    if (!(await this.#hasWorker())) {
      this.#hub.counters.add('requests.no-worker')
      answer(response, 503, 'Service Unavailable', { 'retry-after': '5' })
      return
    }
    const exchange = new HttpExchange({
      hub: this.#hub,
      response,
      path: head.path,
      maxBufferedBytes,
      onEnd: (ended) => this.#forget(ended),
    })
    this.#exchanges.add(exchange)
    this.#hub.counters.add('requests')
    const content = {
      reply_channel: exchange.replyChannel,
      method: request.method ?? 'GET',
      scheme: isSecure ? 'https' : 'http',
      http_version: request.httpVersion,
      ...head,
      ...(body && { body }),
    }
    try {
      const failures = await this.#hub.backend.send([{ channel: 'http.request', content }])
      if (failures[0]) throw failures[0].error
    } catch (error) {
      const isOurs = isChannelkitError(error)
      if (!isOurs || error.category === 'programmer') {
        this.#hub.logger.error({ err: error, path: head.path }, 'a request could not be sent on')
      }
      this.#hub.counters.add(isOurs ? `requests.${error.code}` : 'requests.failed')
      const status = isOurs ? errorTable[error.code].httpStatus : 500
      exchange.fail(status, status === 503 ? 'Service Unavailable' : 'Internal Server Error', {
        ...(status === 503 && { 'retry-after': '1' }),
      })
    }
  }

  async #hasWorker(): Promise<boolean> {
    const { consumed } = this.#hub
    if (consumed.isConsumed('http.request')) return true
    return consumed.awaitConsumer('http.request', this.#settings.workerGapMs)
  }

  #refuse(request: IncomingMessage, response: ServerResponse, error: unknown): void {
    if (isChannelkitError(error) && error.category === 'client') {
      this.#hub.counters.add(`requests.${error.code}`)
      const { httpStatus } = errorTable[error.code]
      answer(response, httpStatus, error.message, { connection: 'close' })
      return
    }
    if (request.destroyed) return
    this.#hub.logger.error({ err: error }, 'a request failed')
    answer(response, 500, 'Internal Server Error')
  }

  #sweep(): void {
    const deadline = this.#hub.backend.limits.clock.now() - this.#settings.responseMs
    for (const exchange of this.#exchanges) {
      if (exchange.startedAt > deadline) break
      if (exchange.hasBegun) continue
      this.#hub.counters.add('requests.timed-out')
      exchange.fail(504, 'Gateway Timeout')
    }
  }

  #forget(exchange: HttpExchange): void {
    this.#exchanges.delete(exchange)
    if (this.#exchanges.size === 0) this.#onIdle?.()
  }
}
