import { type IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { LocalRequest } from '../http/local-requests.ts'
import { checkContentLength, checkStatus, hopByHop } from '../http/response-head.ts'
import { type GivenHeaders, givenValues, withoutHopByHop } from './given-headers.ts'
import type { ViewRequest } from './view-request.ts'

// Own properties survive frameworks that change the response's prototype, as Express does.
const raw = ServerResponse.prototype
const rawWriteHead = raw.writeHead as (
  this: ServerResponse,
  status: number,
  headers?: unknown,
) => ServerResponse
const rawWrite = raw.write as (this: ServerResponse, ...rest: unknown[]) => boolean
const rawEnd = raw.end as (this: ServerResponse, ...rest: unknown[]) => ServerResponse

const lentKey = Symbol('channelkit.lent')

interface Lent {
  readonly lent: LocalRequest
  readonly view: ViewRequest
}

type LentResponse = ServerResponse & { [lentKey]: Lent }

/**
 * Has a client's own request and response behave like those whose answer goes through a channel:
 * what an answer may not have is left out, and once they are taken back nothing that the view does
 * counts.
 */
export function lendResponse(lent: LocalRequest, view: ViewRequest): void {
  const { request, response } = lent
  ;(response as LentResponse)[lentKey] = { lent, view }
  plainAddresses(request.socket)
  // The same functions for all: closures for each response would double its garbage.
  response.writeHead = writeHead as ServerResponse['writeHead']
  response.write = write as ServerResponse['write']
  response.end = end as ServerResponse['end']
  response.flushHeaders = flushHeaders
  response.destroy = destroy
  response.writeContinue = noInterim
  response.writeProcessing = noInterim
  response.writeEarlyHints = noEarlyHints
  response.addTrailers = noInterim
  response.on('error', tellFault)
}

/**
 * Has the view's further calls do nothing, nor fail, and whatever it pipes into the response end.
 * Its request's socket is no longer the client's, which has other requests.
 */
export function takeResponseBack({ request, response }: LocalRequest): void {
  response.setHeader = ignoreHeader as ServerResponse['setHeader']
  response.appendHeader = ignoreHeader as ServerResponse['appendHeader']
  response.setHeaders = ignoreHeader as ServerResponse['setHeaders']
  response.removeHeader = ignoreHeader as ServerResponse['removeHeader']
  request.socket = standIn(request.socket)
  response.destroyed = true
  response.emit('close')
}

function writeHead(
  this: LentResponse,
  status: number,
  reason?: unknown,
  headers?: unknown,
): ServerResponse {
  const { lent } = this[lentKey]
  if (lent.isTakenBack) return this
  checkStatus(status)
  const given = (typeof reason === 'string' ? headers : reason) as GivenHeaders | undefined
  if (typeof reason === 'string') this.statusMessage = reason
  if (this.hasHeader('content-length')) checkContentLength(this.getHeader('content-length'))
  const lengths = given && givenValues(given, 'content-length')
  if (lengths && lengths.length > 0) checkContentLength(lengths)
  for (const name of hopByHop) if (this.hasHeader(name)) dropHopByHop(this, name)
  rawWriteHead.call(this, status, given && withoutHopByHop(given))
  lent.moved()
  return this
}

/** Node's own notes, by which it adds neither header any more once one was removed. */
interface RemovedHeaders {
  _removedConnection: boolean
  _removedTE: boolean
}

/** The connection is this server's, not the answer's (RFC 9110 section 7.6.1). */
function dropHopByHop(response: ServerResponse, name: string): void {
  response.removeHeader(name)
  const removed = response as unknown as RemovedHeaders
  removed._removedConnection = false
  removed._removedTE = false
}

function flushHeaders(this: LentResponse): void {
  const { lent, view } = this[lentKey]
  if (lent.isTakenBack) return
  raw.flushHeaders.call(this)
  view.streams()
}

function write(
  this: LentResponse,
  chunk: unknown,
  encoding?: unknown,
  callback?: unknown,
): boolean {
  const { lent, view } = this[lentKey]
  if (lent.isTakenBack) {
    ignore(encoding, callback)
    return false
  }
  lent.moved()
  const hasRoom = rawWrite.call(this, chunk, encoding, callback)
  view.streams()
  return hasRoom
}

function end(
  this: LentResponse,
  chunk?: unknown,
  encoding?: unknown,
  callback?: unknown,
): ServerResponse {
  const { lent } = this[lentKey]
  if (lent.isTakenBack) {
    ignore(chunk, encoding, callback)
    return this
  }
  rawEnd.call(this, chunk, encoding, callback)
  lent.finished()
  return this
}

function destroy(this: LentResponse): ServerResponse {
  const { lent } = this[lentKey]
  if (!lent.isTakenBack) lent.cut()
  return this
}

/** Without a listener a fault of one view would end the process. */
function tellFault(this: ServerResponse, error: Error): void {
  ;(this as LentResponse)[lentKey].view.onFault?.(error)
}

function noInterim(callback?: unknown): void {
  if (typeof callback === 'function') callback()
}

function noEarlyHints(_hints: unknown, callback?: unknown): void {
  noInterim(callback)
}

function ignoreHeader(this: ServerResponse): ServerResponse {
  return this
}

/** Calls back, as writers wait for it. */
function ignore(...rest: unknown[]): void {
  const callback = rest.find((each) => typeof each === 'function')
  if (callback) process.nextTick(callback as () => void)
}

/** Writes IPv4 addresses that came over an IPv6 socket as IPv4, as in the message. */
function plainAddresses(socket: Socket): void {
  if (socket.remoteAddress?.startsWith('::ffff:') !== true) return
  for (const name of ['remoteAddress', 'localAddress'] as const) {
    const value = socket[name]
    if (!value?.includes('.')) continue
    Object.defineProperty(socket, name, { value: value.slice(7), configurable: true })
  }
  Object.defineProperty(socket, 'remoteFamily', { value: 'IPv4', configurable: true })
}

/** The same socket, but for what would end it. */
function standIn(socket: IncomingMessage['socket']): Socket {
  const ignoreEnd = function (this: Socket): Socket {
    return this
  }
  return Object.create(socket, {
    destroy: { value: ignoreEnd },
    destroySoon: { value: ignoreEnd },
    end: { value: ignoreEnd },
    resetAndDestroy: { value: ignoreEnd },
  })
}
