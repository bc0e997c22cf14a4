import type { ServerResponse } from 'node:http'
import type { Content } from '../content.ts'
import { errorTable, isChannelkitError } from '../errors.ts'
import { silentMs } from '../http/client-link.ts'
import { acknowledgeEvery, partCost } from '../http/part-window.ts'
import { checkResponseHead, responseHeaders } from '../http/response-head.ts'
import type { HttpListen, HttpResponse, HttpResponsePart } from '../message-formats.ts'
import type { Hub } from './hub.ts'
import type { Reply, ReplyOwner } from './reply.ts'
import type { RequestBody } from './request-body.ts'

export interface ExchangeOptions {
  readonly hub: Hub
  readonly response: ServerResponse
  readonly method: string
  readonly path: string
  /** What is left of the request's body behind its first part. */
  readonly body: RequestBody | undefined
  readonly maxBufferedBytes: number
  readonly responseMs: number
  readonly streamMs: number
  readonly watcher: ExchangeWatcher
}

/** Who keeps the exchanges of a server. */
export interface ExchangeWatcher {
  /** Something moved: its deadline is later now. */
  onMove(exchange: HttpExchange): void
  /** Its client needs nothing more. */
  onEnd(exchange: HttpExchange): void
}

/**
 * One request that waits for its answer: writes the replies to its channel as the response, the
 * first as its head, and ends with the first that has no `more_content`.
 *
 * When the client leaves first, the reply channel stays for a while, to tell whoever still works
 * on the answer.
 */
export class HttpExchange implements ReplyOwner {
  readonly replyChannel: string
  readonly path: string
  /** When something last moved, in milliseconds of the backend's clock. */
  movedAt: number
  readonly body: RequestBody | undefined
  readonly #hub: Hub
  readonly #response: ServerResponse
  readonly #options: ExchangeOptions
  #isEnded = false
  /** Ended before its answer was complete. */
  #isLeft = false
  #listener: string | undefined
  #writtenParts = 0
  /** What was written since the last acknowledgement. */
  #writtenCost = 0
  #grantedParts = 0
  #sentParts = 0
  #isPumping = false

  constructor(options: ExchangeOptions) {
    this.#options = options
    this.#hub = options.hub
    this.movedAt = this.#hub.backend.limits.clock.now()
    this.#response = options.response
    this.path = options.path
    this.body = options.body
    this.replyChannel = this.#hub.inbox.newChannel(this)
    this.#response.once('close', () => this.#clientLeft())
  }

  get hasBegun(): boolean {
    return this.#response.headersSent
  }

  /** How long nothing may move before it is given up, in milliseconds. */
  get patienceMs(): number {
    if (!this.hasBegun) return this.#options.responseMs
    return this.#listener === undefined ? this.#options.streamMs : silentMs
  }

  receive(reply: Reply): void {
    const { content } = reply
    if (typeof content.listen === 'string') {
      this.#listen(content as HttpListen)
      return
    }
    if (this.#isEnded) {
      this.#hub.counters.add('dropped.gone')
      if (content.more_content !== true) this.forget()
      return
    }
    if (content.abort === true) {
      this.#cut()
      return
    }
    try {
      if (this.hasBegun) this.#writePart(content as HttpResponsePart)
      else this.#writeHead(content as HttpResponse)
    } catch (error) {
      this.#hub.counters.add('dropped.bad-reply')
      this.#hub.logger.error({ err: error, path: this.path }, 'a reply to a request is refused')
      this.fail(500, 'Internal Server Error')
    }
  }

  /** Ends with an error page, or by cutting an answer that has begun. */
  fail(status: number, text: string, headers: Readonly<Record<string, string>> = {}): void {
    if (this.#isEnded) return
    this.#giveUp()
    if (this.hasBegun) this.#response.destroy()
    else answer(this.#response, status, text, this.#isBodyLeft ? closing(headers) : headers)
  }

  #cut(): void {
    this.#end()
    this.forget()
    this.#response.destroy()
  }

  /** Ends the reply channel of one whose client has left. */
  forget(): void {
    this.#hub.inbox.endChannel(this.replyChannel)
  }

  get #isBodyLeft(): boolean {
    return this.body !== undefined && !this.body.isComplete
  }

  #listen({ listen, body_parts: bodyParts }: HttpListen): void {
    this.#listener = listen
    if (this.#isLeft) {
      this.#tell({ closed: true })
      return
    }
    if (this.#isEnded) return
    if (this.hasBegun) this.#move()
    this.#acknowledge()
    if (typeof bodyParts === 'number' && bodyParts > this.#grantedParts) {
      this.#grantedParts = bodyParts
      void this.#pump()
    }
  }

  /** Sends on the body's parts, as many as the listener has asked for. */
  async #pump(): Promise<void> {
    const { body } = this
    if (!body || this.#isPumping) return
    this.#isPumping = true
    try {
      while (this.#sentParts < this.#grantedParts && !body.isComplete && !this.#isEnded) {
        const { bytes, isLast } = await body.next()
        if (this.#isEnded) return
        this.#move()
        await this.#send({
          part: this.#sentParts,
          more_content: !isLast,
          ...(bytes && { body: bytes }),
        })
        this.#sentParts++
      }
    } catch (error) {
      this.#failBody(error)
    } finally {
      this.#isPumping = false
    }
  }

  #failBody(error: unknown): void {
    if (this.#isEnded) return
    if (!isChannelkitError(error)) {
      // The client has left; the end of its response tells.
      this.#hub.logger.debug({ err: error, path: this.path }, 'a body broke off')
      return
    }
    this.#hub.counters.add(`requests.${error.code}`)
    const { httpStatus } = errorTable[error.code]
    this.fail(httpStatus, error.category === 'client' ? error.message : statusText(httpStatus))
  }

  #writeHead(content: HttpResponse): void {
    checkResponseHead(content)
    const body = asBytes(content.content)
    const hasMore = content.more_content === true
    const status = content.status ?? 200
    let hasLength = false
    let lists: Map<string, string[]> | undefined
    for (const [name, value] of responseHeaders(content)) {
      const key = name.toLowerCase()
      // The connection is this server's, not the answer's (RFC 9110 section 7.6.1).
      if (hopByHop.has(key)) continue
      if (key === 'content-length') hasLength = true
      if (this.#response.hasHeader(key)) {
        lists ??= new Map()
        let list = lists.get(key)
        if (!list) {
          list = [this.#response.getHeader(key) as string]
          lists.set(key, list)
        }
        list.push(value)
        this.#response.setHeader(name, list)
      } else {
        this.#response.setHeader(name, value)
      }
    }
    const isHead = this.#options.method === 'HEAD'
    if (!hasMore && !hasLength && allowsLength(status) && !(isHead && body === undefined)) {
      this.#response.setHeader('content-length', body?.byteLength ?? 0)
    }
    if (this.#isBodyLeft) this.#response.shouldKeepAlive = false
    this.#response.writeHead(status)
    this.#write(body, hasMore, partCost(content.content))
  }

  #writePart({ content, more_content }: HttpResponsePart): void {
    this.#write(asBytes(content), more_content === true, partCost(content))
  }

  #write(body: Uint8Array | undefined, hasMore: boolean, cost: number): void {
    if (!hasMore) {
      this.#end()
      this.forget()
      if (body && body.byteLength <= joinedBytes && this.#writtenParts === 0) {
        // Node writes a head and a string in one go, but a head and bytes in two.
        this.#response.end(latin1(body), 'latin1')
      } else {
        this.#response.end(body)
      }
      return
    }
    this.#move()
    if (body && body.byteLength > 0) {
      this.#response.write(body, () => this.#written(cost))
    } else {
      this.#response.flushHeaders()
      this.#written(cost)
    }
    if (this.#response.writableLength > this.#options.maxBufferedBytes) {
      this.#hub.counters.add('closed.slow-reader')
      this.fail(503, '')
    }
  }

  #written(cost: number): void {
    this.#writtenParts++
    this.#writtenCost += cost
    if (this.#writtenCost < acknowledgeEvery || this.#isEnded) return
    this.#move()
    if (this.#listener !== undefined) this.#acknowledge()
  }

  #acknowledge(): void {
    this.#writtenCost = 0
    this.#tell({ received: this.#writtenParts })
  }

  /** Tells the listener, if there is one; what cannot be told now is told with its next beat. */
  #tell(notice: Content): void {
    if (this.#listener === undefined) return
    this.#send(notice).catch((error: unknown) => {
      this.#hub.logger.debug({ err: error }, 'a view could not be told of its client')
    })
  }

  async #send(notice: Content): Promise<void> {
    const channel = this.#listener as string
    const failures = await this.#hub.backend.send([{ channel, content: notice, handsOver: true }])
    if (failures[0]) throw failures[0].error
  }

  #clientLeft(): void {
    if (this.#isEnded) return
    this.#giveUp()
    this.#hub.counters.add('requests.aborted')
    if (this.#hub.consumed.isConsumed('http.disconnect')) {
      this.#hub.backend
        .send([
          {
            channel: 'http.disconnect',
            content: { reply_channel: this.replyChannel, path: this.path },
          },
        ])
        .catch((error: unknown) => {
          this.#hub.logger.debug({ err: error }, 'http.disconnect could not be sent')
        })
    }
  }

  #giveUp(): void {
    this.#isLeft = true
    this.#end()
    this.#tell({ closed: true })
  }

  #move(): void {
    this.movedAt = this.#hub.backend.limits.clock.now()
    this.#options.watcher.onMove(this)
  }

  #end(): void {
    this.#isEnded = true
    if (this.#isBodyLeft) this.body?.discard()
    this.#options.watcher.onEnd(this)
  }

  /** Whether whoever works on the answer may still have to be told that its client has left. */
  get isLeft(): boolean {
    return this.#isLeft
  }
}

// Beyond this, making a string costs more than the second write.
const joinedBytes = 16_384

function latin1({ buffer, byteOffset, byteLength }: Uint8Array): string {
  return Buffer.from(buffer, byteOffset, byteLength).toString('latin1')
}

const hopByHop: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'transfer-encoding',
  'upgrade',
  'trailer',
])

function allowsLength(status: number): boolean {
  return status !== 204 && status !== 304
}

function closing(headers: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
  return { ...headers, connection: 'close' }
}

function statusText(status: number): string {
  return status === 503 ? 'Service Unavailable' : 'Internal Server Error'
}

function asBytes(content: unknown): Uint8Array | undefined {
  if (content === undefined || content === null) return undefined
  if (typeof content === 'string') return Buffer.from(content)
  if (content instanceof Uint8Array) return content
  throw new TypeError(`the content of a response is a ${typeof content}; send a string or bytes`)
}

/** Answers with a short page of plain text. */
export function answer(
  response: ServerResponse,
  status: number,
  text: string,
  headers: Readonly<Record<string, string>> = {},
): void {
  if (response.headersSent || response.destroyed) return
  // What a refused answer has set already is not this page's.
  for (const name of response.getHeaderNames()) response.removeHeader(name)
  response.writeHead(status, {
    'content-type': 'text/plain; charset=utf-8',
    'content-length': Buffer.byteLength(text),
    ...headers,
  })
  response.end(text)
}
