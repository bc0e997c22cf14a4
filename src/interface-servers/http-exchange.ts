import type { ServerResponse } from 'node:http'
import { checkResponseHead, responseHeaders } from '../http/response-head.ts'
import type { HttpResponse, HttpResponsePart } from '../message-formats.ts'
import type { Hub } from './hub.ts'
import type { Reply, ReplyOwner } from './reply.ts'

/**
 * One request that waits for its answer: writes the replies to its channel as the response, the
 * first as its head, and ends with the first that has no `more_content`.
 */
export class HttpExchange implements ReplyOwner {
  readonly replyChannel: string
  /** In milliseconds of the backend's clock. */
  readonly startedAt: number
  readonly path: string
  readonly #hub: Hub
  readonly #response: ServerResponse
  readonly #maxBufferedBytes: number
  readonly #onEnd: (exchange: HttpExchange) => void
  #isEnded = false

  constructor(options: {
    readonly hub: Hub
    readonly response: ServerResponse
    readonly path: string
    readonly maxBufferedBytes: number
    readonly onEnd: (exchange: HttpExchange) => void
  }) {
    this.#hub = options.hub
    this.startedAt = this.#hub.backend.limits.clock.now()
    this.#response = options.response
    this.path = options.path
    this.#maxBufferedBytes = options.maxBufferedBytes
    this.#onEnd = options.onEnd
    this.replyChannel = this.#hub.inbox.newChannel(this)
    this.#response.once('close', () => this.#clientLeft())
  }

  get hasBegun(): boolean {
    return this.#response.headersSent
  }

  receive(reply: Reply): void {
    if (this.#isEnded) {
      this.#hub.counters.add('dropped.gone')
      return
    }
    try {
      if (this.hasBegun) this.#writePart(reply.content as HttpResponsePart)
      else this.#writeHead(reply.content as HttpResponse)
    } catch (error) {
      this.#hub.counters.add('dropped.bad-reply')
      this.#hub.logger.error({ err: error, path: this.path }, 'a reply to a request is refused')
      this.fail(500, 'Internal Server Error')
    }
  }

  /** Ends with an error page, or by cutting an answer that has begun. */
  fail(status: number, text: string, headers: Readonly<Record<string, string>> = {}): void {
    if (this.#isEnded) return
    this.#end()
    if (this.hasBegun) this.#response.destroy()
    else answer(this.#response, status, text, headers)
  }

  #writeHead(content: HttpResponse): void {
    checkResponseHead(content)
    const body = asBytes(content.content)
    const grouped = new Map<string, { name: string; values: string[] }>()
    for (const [name, value] of responseHeaders(content)) {
      const key = name.toLowerCase()
      // The connection is this server's, not the answer's (RFC 9110 section 7.6.1).
      if (hopByHop.has(key)) continue
      const known = grouped.get(key)
      if (known) known.values.push(value)
      else grouped.set(key, { name, values: [value] })
    }
    for (const { name, values } of grouped.values()) {
      this.#response.setHeader(name, values.length === 1 ? (values[0] as string) : values)
    }
    if (!content.more_content && !grouped.has('content-length') && allowsLength(content.status)) {
      this.#response.setHeader('content-length', body?.byteLength ?? 0)
    }
    this.#response.writeHead(content.status ?? 200)
    this.#write(body, content.more_content === true)
  }

  #writePart({ content, more_content }: HttpResponsePart): void {
    this.#write(asBytes(content), more_content === true)
  }

  #write(body: Uint8Array | undefined, hasMore: boolean): void {
    if (!hasMore) {
      this.#end()
      this.#response.end(body)
      return
    }
    if (body) this.#response.write(body)
    else this.#response.flushHeaders()
    if (this.#response.writableLength > this.#maxBufferedBytes) {
      this.#hub.counters.add('closed.slow-reader')
      this.fail(503, '')
    }
  }

  #clientLeft(): void {
    if (this.#isEnded) return
    this.#end()
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

  #end(): void {
    this.#isEnded = true
    this.#hub.inbox.endChannel(this.replyChannel)
    this.#onEnd(this)
  }
}

const hopByHop: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'transfer-encoding',
  'upgrade',
])

function allowsLength(status = 200): boolean {
  return status !== 204 && status !== 304
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
  response.writeHead(status, {
    'content-type': 'text/plain; charset=utf-8',
    'content-length': Buffer.byteLength(text),
    ...headers,
  })
  response.end(text)
}
