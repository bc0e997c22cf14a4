import { IncomingMessage, ServerResponse } from 'node:http'
import type { HttpRequest, HttpResponse } from '../message-formats.ts'
import { foldHeaders, type GivenHeaders } from './given-headers.ts'
import { MemorySocket } from './memory-socket.ts'
import { NodeAnswer } from './node-answer.ts'
import type { NodeHandler } from './view-app.ts'
import { rememberRequest, type ViewRequest } from './view-request.ts'

// Node's own request and response are used, so that frameworks find every property they know. What
// an app writes is caught by own properties of the response: those survive frameworks that change
// its prototype, as Express does.
const nodeWriteHead = ServerResponse.prototype.writeHead
const nodeRead = IncomingMessage.prototype._read
const nodeWrite = ServerResponse.prototype.write
const nodeEnd = ServerResponse.prototype.end

/** What Node's parser uses to fill a request. */
interface ParsedRequest {
  _addHeaderLines(headers: readonly string[], count: number): void
}

/** Has a handler of Node's requests answer a request. Resolves when its answer is sent. */
export async function runNodeView(handler: NodeHandler, view: ViewRequest): Promise<void> {
  const { content } = view.message
  const { link } = view
  const socket = new MemorySocket(content)
  const request = nodeRequest(content, socket, view)
  const answer = new NodeAnswer(view)
  const response = nodeResponse(request, answer, socket, view)
  rememberRequest(request, view)

  const closed = new Promise<void>((resolve) => {
    link.onClose = () => {
      request.destroy(Object.assign(new Error('aborted'), { code: 'ECONNRESET' }))
      socket.destroy()
      resolve()
    }
  })
  const done = new Promise<void>((resolve) => {
    view.onDefer = resolve
    response.once('finish', resolve)
    socket.once('close', resolve)
  })
  response.on('error', (error) => view.onFault?.(error))
  try {
    // A handler that never settles is not waited for when nobody wants its answer any more.
    await Promise.race([handler(request, response), closed])
    await done
    if (view.isDeferred) return
    await answer.sent.catch((error: unknown) => {
      if (!link.isClosed) throw error
    })
    if (!response.writableEnded && !link.isClosed) await link.send({ abort: true })
  } finally {
    link.onClose = undefined
    if (!view.isDeferred) close(request, socket)
  }
}

/** What Node's server does when a response is finished. */
function close(request: IncomingMessage, socket: MemorySocket): void {
  if (request.complete) request.resume()
  else request.destroy()
  socket.destroy()
}

function nodeRequest(
  content: HttpRequest,
  socket: MemorySocket,
  { link }: ViewRequest,
): IncomingMessage {
  const request = new IncomingMessage(socket.asSocket)
  request.method = content.method
  request.url =
    content.query_string === '' ? content.raw_path : `${content.raw_path}?${content.query_string}`
  request.httpVersion = content.http_version
  request.httpVersionMajor = 1
  request.httpVersionMinor = content.http_version === '1.0' ? 0 : 1
  const lines: string[] = []
  for (const [name, value] of content.headers) lines.push(name, value)
  ;(request as unknown as ParsedRequest)._addHeaderLines(lines, lines.length)
  if (!content.more_content) {
    if (content.body) request.push(content.body)
    request.complete = true
    request.push(null)
    return request
  }
  let first = content.body
  let isReading = false
  request._read = (size) => {
    // Notes that somebody reads, without which Node asks for two parts and no more.
    nodeRead.call(request, size)
    if (first) {
      const bytes = first
      first = undefined
      request.push(bytes)
      return
    }
    if (isReading) return
    isReading = true
    link.nextBodyPart().then(
      ({ bytes, isLast }) => {
        isReading = false
        if (isLast) request.complete = true
        if (bytes) request.push(bytes)
        if (isLast) request.push(null)
        else if (!bytes) request._read(0)
      },
      (error: unknown) => request.destroy(error as Error),
    )
  }
  return request
}

type Callback = (error?: Error | null) => void

const stateKey = Symbol('channelkit.response')

/** What the own methods of a response work on. */
interface ResponseState {
  readonly view: ViewRequest
  readonly answer: NodeAnswer
  readonly socket: MemorySocket
}

type CaughtResponse = ServerResponse & { [stateKey]: ResponseState }

function nodeResponse(
  request: IncomingMessage,
  answer: NodeAnswer,
  socket: MemorySocket,
  view: ViewRequest,
): ServerResponse {
  const response = new ServerResponse(request)
  ;(response as CaughtResponse)[stateKey] = { view, answer, socket }
  response.assignSocket(socket.asSocket)
  answer.onDrain = () => response.emit('drain')
  // The same functions for all: closures for each response would double its garbage.
  response.writeHead = writeHead as ServerResponse['writeHead']
  response.write = write as ServerResponse['write']
  response.end = end as ServerResponse['end']
  response.flushHeaders = flushHeaders as ServerResponse['flushHeaders']
  response.writeContinue = noInterim
  response.writeProcessing = noInterim
  response.writeEarlyHints = (_hints, callback) => noInterim(callback)
  // The interface server drops trailers.
  response.addTrailers = noInterim
  return response
}

function begin(response: ServerResponse): void {
  if (!response.headersSent) response.writeHead(response.statusCode)
}

function isBodiless(response: ServerResponse, { view }: ResponseState): boolean {
  const { statusCode } = response
  return statusCode === 204 || statusCode === 304 || view.message.content.method === 'HEAD'
}

function writeHead(
  this: CaughtResponse,
  status: number,
  reason?: unknown,
  headers?: unknown,
): ServerResponse {
  const given = typeof reason === 'string' ? headers : reason
  if (!this.headersSent && given) foldHeaders(this, given as GivenHeaders)
  if (typeof reason === 'string') this.statusMessage = reason
  nodeWriteHead.call(this, status)
  this[stateKey].answer.begin(headOf(this))
  return this
}

function flushHeaders(this: CaughtResponse): void {
  const { view, answer } = this[stateKey]
  if (view.isDeferred) return
  begin(this)
  answer.flush()
}

function write(
  this: CaughtResponse,
  chunk: unknown,
  encoding?: unknown,
  callback?: unknown,
): boolean {
  const state = this[stateKey]
  // Somebody else answers, or nobody is there to be answered.
  if (state.view.isDeferred || state.view.link.isClosed) {
    callLater(callbackOf(encoding, callback))
    return false
  }
  const bytes = bytesOf(chunk, encoding)
  if (this.writableEnded || bytes === undefined || this.destroyed) {
    return nodeWrite.call(this, chunk, encoding as BufferEncoding, callback as Callback)
  }
  begin(this)
  const called = callbackOf(encoding, callback)
  if (isBodiless(this, state) || bytes.byteLength === 0) {
    if (called) process.nextTick(called)
    return true
  }
  return state.answer.write(bytes, called)
}

function end(
  this: CaughtResponse,
  chunk?: unknown,
  encoding?: unknown,
  callback?: unknown,
): ServerResponse {
  if (typeof chunk === 'function') return end.call(this, undefined, undefined, chunk)
  const state = this[stateKey]
  if (state.view.isDeferred || state.view.link.isClosed) {
    callLater(callbackOf(encoding, callback))
    return this
  }
  const bytes = bytesOf(chunk, encoding)
  const isWrong = bytes === undefined && chunk !== undefined && chunk !== null
  if (isWrong || this.writableEnded || this.destroyed) {
    return nodeEnd.call(this, chunk, encoding as BufferEncoding, callback as Callback)
  }
  begin(this)
  state.answer.end(isBodiless(this, state) ? undefined : bytes)
  state.socket.sent = state.answer.sent
  return nodeEnd.call(this, undefined, 'latin1', callbackOf(encoding, callback))
}

function callLater(callback: (() => void) | undefined): void {
  if (callback) process.nextTick(callback)
}

function noInterim(callback?: unknown): void {
  if (typeof callback === 'function') callback()
}

/** The bytes of a chunk; undefined for what Node is to refuse itself. */
function bytesOf(chunk: unknown, encoding: unknown): Uint8Array | undefined {
  if (typeof chunk === 'string') {
    return Buffer.from(chunk, typeof encoding === 'string' ? (encoding as BufferEncoding) : 'utf8')
  }
  return chunk instanceof Uint8Array ? chunk : undefined
}

function callbackOf(encoding: unknown, callback: unknown): (() => void) | undefined {
  const called = typeof encoding === 'function' ? encoding : callback
  return typeof called === 'function' ? (called as () => void) : undefined
}

/** Left out by Node's own types. */
interface RawHeaderNames {
  getRawHeaderNames(): readonly string[]
}

function headOf(response: ServerResponse): HttpResponse {
  const headers: [string, string][] = []
  const { getRawHeaderNames } = response as unknown as RawHeaderNames
  for (const name of getRawHeaderNames.call(response)) {
    const value = response.getHeader(name)
    if (Array.isArray(value)) for (const each of value) headers.push([name, each])
    else if (value !== undefined) headers.push([name, String(value)])
  }
  return { status: response.statusCode, headers }
}
