import { type IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Content } from '../content.ts'
import { errorTable, isChannelkitError } from '../errors.ts'
import { silentMs } from '../http/client-link.ts'
import { errorPage } from '../http/error-page.ts'
import type { LocalRequest } from '../http/local-requests.ts'
import { acknowledgeEvery, partCost } from '../http/part-window.ts'
import { requestId } from '../http/request-id.ts'
import { endWith } from '../http/response-end.ts'
import { checkResponseHead, hopByHop, responseHeaders } from '../http/response-head.ts'
import type { Clock } from '../internal/clock.ts'
import type { Listed } from '../internal/roster.ts'
import type { HttpListen, HttpResponse, HttpResponsePart } from '../message-formats.ts'
import type { Hub } from './hub.ts'
import type { Reply, ReplyOwner } from './reply.ts'
import type { RequestBody } from './request-body.ts'

// A view that was lent the response has put methods of its own on it.
const raw = ServerResponse.prototype
const rawWrite = raw.write as (
  this: ServerResponse,
  chunk: Uint8Array,
  callback: () => void,
) => boolean
const rawEnd = raw.end as (
  this: ServerResponse,
  chunk?: string | Uint8Array,
  encoding?: BufferEncoding,
) => ServerResponse

export interface ExchangeOptions {
  readonly hub: Hub
  readonly request: IncomingMessage
  readonly response: ServerResponse
  /** Whether the request still is what its client sent, and the message tells nothing else. */
  readonly isLendable: boolean
  readonly method: string
  readonly path: string
  readonly isProduction: boolean
  /** What is left of the request's body behind its first part. */
  readonly body: RequestBody | undefined
  readonly maxBufferedBytes: number
  readonly responseMs: number
  readonly streamMs: number
  readonly watcher: ExchangeWatcher
}

/** Who keeps the exchanges of a server. */
export interface ExchangeWatcher {
  /** Its client needs nothing more. */
  onEnd(exchange: HttpExchange): void
  /** It has ended, and its client has yet to take much of it. */
  onUntaken(exchange: HttpExchange): void
}

/**
 * One request that waits for its answer: writes the replies to its channel as the response, the
 * first as its head, and ends with the first that has no `more_content`.
 *
 * When the client leaves first, the reply channel stays for a while, to tell whoever still works
 * on the answer.
 */
export class HttpExchange implements ReplyOwner, LocalRequest, Listed {
  place = -1
  readonly replyChannel: string
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly path: string
  /** When something last moved, in milliseconds of the backend's clock. */
  movedAt: number
  readonly body: RequestBody | undefined
  onOver: (() => void) | undefined
  readonly #hub: Hub
  readonly #options: ExchangeOptions
  #isEnded = false
  /** Whether a view of this process writes the answer. */
  #isLent = false
  #isTakenBack = false
  readonly #socket: Socket
  /** How much the client had taken when that was looked at last, and since when it was no more. */
  #taken = ''
  #takenSince: number | undefined
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
    this.request = options.request
    this.response = options.response
    this.#socket = options.request.socket
    this.path = options.path
    this.body = options.body
    this.replyChannel = this.#hub.inbox.newChannel(this)
    const response = options.response as OwnedResponse
    response[exchangeKey] = this
    response.on('close', tellClosed)
  }

  get hasBegun(): boolean {
    return this.response.headersSent
  }

  /** How long nothing may move before it is given up, in milliseconds. */
  get patienceMs(): number {
    if (!this.hasBegun) return this.#options.responseMs
    // Such a view cannot die alone.
    if (this.#isLent) return Number.POSITIVE_INFINITY
    return this.#listener === undefined ? this.#options.streamMs : silentMs
  }

  /** Whether its client's connection has ended without anybody having told. */
  get isDisconnected(): boolean {
    return this.#socket.destroyed
  }

  /** Since when the client has taken nothing of what waits for it; undefined when nothing waits. */
  untakenSince(now: number): number | undefined {
    const { socket } = this.response
    // An answer behind another on one connection waits for that.
    if (socket !== this.#socket || socket.writableLength === 0) {
      this.#takenSince = undefined
      return undefined
    }
    // One large write is taken little by little by the system, of which only Node's handle knows.
    const handle = (socket as { _handle?: { readonly writeQueueSize?: number } })._handle
    const taken = `${socket.bytesWritten - socket.writableLength} ${handle?.writeQueueSize ?? 0}`
    if (this.#takenSince === undefined || taken !== this.#taken) {
      this.#taken = taken
      this.#takenSince = now
    }
    return this.#takenSince
  }

  /** Ends the connection of a client that does not take its answer. */
  cutOff(): void {
    this.#hub.counters.add('closed.slow-reader')
    this.#socket.destroy()
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
      // For the view that has given it back it is over, but not for whoever answers instead.
      if (this.#isTakenBack) this.response.destroyed = false
      if (this.hasBegun) this.#writePart(content as HttpResponsePart)
      else this.#writeHead(content as HttpResponse)
      if (this.#isTakenBack) this.response.destroyed = true
    } catch (error) {
      this.#hub.counters.add('dropped.bad-reply')
      const { method, isProduction } = this.#options
      const id = requestId(this.replyChannel)
      this.#hub.logger.error(
        { err: error, method, path: this.path, request: id },
        `the answer to ${method} ${this.path} is refused`,
      )
      this.fail(500, errorPage(error, id, isProduction))
    }
  }

  /** Ends with an error page, or by cutting an answer that has begun. */
  fail(status: number, text: string, headers: Readonly<Record<string, string>> = {}): void {
    if (this.#isEnded) return
    this.#giveUp()
    if (this.hasBegun) raw.destroy.call(this.response)
    else answer(this.response, status, text, headers)
    this.#takeBack()
  }

  /** Lends it to a view of this process, which writes the answer itself. */
  lend(): LocalRequest | undefined {
    const isFree = !this.#isEnded && !this.hasBegun && this.#listener === undefined
    if (!isFree || !this.#options.isLendable || this.#isLent || this.#isTakenBack) return undefined
    this.#isLent = true
    return this
  }

  get isTakenBack(): boolean {
    return this.#isTakenBack
  }

  moved(): void {
    this.#move()
  }

  finished(): void {
    if (this.#isEnded) return
    this.#end()
    this.forget()
    if (this.response.writableLength >= untakenBytes) this.#options.watcher.onUntaken(this)
    this.onOver?.()
  }

  cut(): void {
    if (this.#isEnded) return
    this.#cut()
    this.#takeBack()
  }

  giveBack(): void {
    this.#takeBack()
  }

  #takeBack(): void {
    if (!this.#isLent) return
    this.#isLent = false
    this.#isTakenBack = true
    this.onOver?.()
  }

  #cut(): void {
    this.#end()
    this.forget()
    const { socket } = this.response
    if (!this.hasBegun || !socket || this.request.httpVersionMinor === 0) {
      raw.destroy.call(this.response)
      return
    }
    // What was written still arrives; that the last chunk does not, tells that more should have.
    socket.setTimeout(cutFlushMs, () => socket.destroy())
    socket.destroySoon()
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
    // What a view has set that gave the request back is not this answer's.
    if (this.#isTakenBack) removeHeaders(this.response)
    for (const [name, value] of responseHeaders(content)) {
      const key = name.toLowerCase()
      if (hopByHop.has(key)) continue
      if (key === 'content-length') hasLength = true
      if (raw.hasHeader.call(this.response, key)) {
        lists ??= new Map()
        let list = lists.get(key)
        if (!list) {
          list = [raw.getHeader.call(this.response, key) as string]
          lists.set(key, list)
        }
        list.push(value)
        raw.setHeader.call(this.response, name, list)
      } else {
        raw.setHeader.call(this.response, name, value)
      }
    }
    const isHead = this.#options.method === 'HEAD'
    if (!hasMore && !hasLength && allowsLength(status) && !(isHead && body === undefined)) {
      raw.setHeader.call(this.response, 'content-length', body?.byteLength ?? 0)
    }
    raw.writeHead.call(this.response, status)
    this.#write(body, hasMore, partCost(content.content))
  }

  #writePart({ content, more_content }: HttpResponsePart): void {
    this.#write(asBytes(content), more_content === true, partCost(content))
  }

  #write(body: Uint8Array | undefined, hasMore: boolean, cost: number): void {
    if (!hasMore) {
      this.#end()
      this.forget()
      if (this.#writtenParts === 0) endWith(this.response, body)
      else rawEnd.call(this.response, body)
      if (this.response.writableLength >= untakenBytes) this.#options.watcher.onUntaken(this)
      return
    }
    this.#move()
    if (body && body.byteLength > 0) {
      rawWrite.call(this.response, body, () => this.#written(cost))
    } else {
      raw.flushHeaders.call(this.response)
      this.#written(cost)
    }
    if (this.response.writableLength > this.#options.maxBufferedBytes) {
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

  /** To be called when the client's connection is no longer the request's. */
  clientLeft(): void {
    // A view is told that it is over by the same event.
    if (this.#isEnded || !this.#socket.destroyed) return
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
    this.#takeBack()
  }

  #giveUp(): void {
    // A view that has the request itself need not be told by its channel.
    this.#isLeft = !this.#isLent
    this.#end()
    if (this.#isLent) this.forget()
    this.#tell({ closed: true })
  }

  #move(): void {
    this.movedAt = this.#hub.backend.limits.clock.now()
  }

  #end(): void {
    this.#isEnded = true
    if (this.#isBodyLeft) {
      this.body?.discard()
      readOff(this.request, this.#hub.backend.limits.clock)
    }
    this.#options.watcher.onEnd(this)
  }

  /** Whether whoever works on the answer may still have to be told that its client has left. */
  get isLeft(): boolean {
    return this.#isLeft
  }
}

// An answer of which no more waits goes into the system's own buffers at once.
const untakenBytes = 65_536

// A client that reads nothing for so long gets no more of an answer that was cut.
const cutFlushMs = 5_000

function allowsLength(status: number): boolean {
  return status !== 204 && status !== 304
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

const exchangeKey = Symbol('channelkit.exchange')

type OwnedResponse = ServerResponse & { [exchangeKey]: HttpExchange }

/** One listener for all: a closure for each response would double its garbage. */
function tellClosed(this: ServerResponse): void {
  ;(this as OwnedResponse)[exchangeKey].clientLeft()
}

// So long a client may still send the body of a request that was answered without it.
const readOffMs = 5_000

/**
 * Reads and drops what a client still sends of a request that has its answer: were the connection
 * closed at once, the answer could be lost with it.
 */
export function readOff(request: IncomingMessage, clock: Clock): void {
  if (request.complete || request.destroyed) return
  request.resume()
  const cancel = clock.schedule(() => request.destroy(), readOffMs)
  request.once('close', cancel)
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
  removeHeaders(response)
  raw.writeHead.call(response, status, {
    'content-type': 'text/plain; charset=utf-8',
    'content-length': Buffer.byteLength(text),
    ...headers,
  })
  rawEnd.call(response, text)
}

function removeHeaders(response: ServerResponse): void {
  response.statusMessage = ''
  for (const name of raw.getHeaderNames.call(response)) raw.removeHeader.call(response, name)
}
