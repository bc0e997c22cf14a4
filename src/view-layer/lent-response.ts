import { ServerResponse } from 'node:http'
import type { LocalRequest } from '../http/local-requests.ts'
import { checkStatus, hopByHop } from '../http/response-head.ts'
import { type GivenHeaders, withoutHopByHop } from './given-headers.ts'

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

type LentResponse = ServerResponse & { [lentKey]: LocalRequest }

/**
 * Has a client's own response behave like one whose answer goes through a channel: what an answer
 * may not have is left out, and once it is taken back nothing that the view writes counts.
 */
export function lendResponse(lent: LocalRequest): void {
  const { response } = lent
  ;(response as LentResponse)[lentKey] = lent
  // The same functions for all: closures for each response would double its garbage.
  response.writeHead = writeHead as ServerResponse['writeHead']
  response.write = write as ServerResponse['write']
  response.end = end as ServerResponse['end']
  response.destroy = destroy
  response.writeContinue = noInterim
  response.writeProcessing = noInterim
  response.writeEarlyHints = noEarlyHints
  response.addTrailers = noInterim
}

/** Has the view's further calls do nothing, nor fail. */
export function silenceResponse(response: ServerResponse): void {
  response.setHeader = ignoreHeader as ServerResponse['setHeader']
  response.appendHeader = ignoreHeader as ServerResponse['appendHeader']
  response.setHeaders = ignoreHeader as ServerResponse['setHeaders']
  response.removeHeader = ignoreHeader as ServerResponse['removeHeader']
  response.flushHeaders = ignoreHeader as ServerResponse['flushHeaders']
}

function writeHead(
  this: LentResponse,
  status: number,
  reason?: unknown,
  headers?: unknown,
): ServerResponse {
  const lent = this[lentKey]
  if (lent.isTakenBack) return this
  checkStatus(status)
  const given = (typeof reason === 'string' ? headers : reason) as GivenHeaders | undefined
  if (typeof reason === 'string') this.statusMessage = reason
  for (const name of hopByHop) if (this.hasHeader(name)) dropHopByHop(this, name)
  rawWriteHead.call(this, status, given && withoutHopByHop(given))
  lent.moved()
  return this
}

/**
 * The connection is this server's, not the answer's (RFC 9110 section 7.6.1). Node would send
 * neither of these two at all once it was removed.
 */
function dropHopByHop(response: ServerResponse, name: string): void {
  if (name === 'connection') {
    response.setHeader(name, response.shouldKeepAlive ? 'keep-alive' : 'close')
  } else if (name === 'transfer-encoding' && response.req.httpVersionMinor > 0) {
    response.setHeader(name, 'chunked')
  } else {
    response.removeHeader(name)
  }
}

function write(
  this: LentResponse,
  chunk: unknown,
  encoding?: unknown,
  callback?: unknown,
): boolean {
  const lent = this[lentKey]
  if (lent.isTakenBack) return ignored(true, encoding, callback)
  lent.moved()
  return rawWrite.call(this, chunk, encoding, callback)
}

function end(
  this: LentResponse,
  chunk?: unknown,
  encoding?: unknown,
  callback?: unknown,
): ServerResponse {
  const lent = this[lentKey]
  if (lent.isTakenBack) return ignored<ServerResponse>(this, chunk, encoding, callback)
  rawEnd.call(this, chunk, encoding, callback)
  lent.finished()
  return this
}

function destroy(this: LentResponse): ServerResponse {
  this[lentKey].cut()
  return this
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
function ignored<T>(result: T, ...rest: unknown[]): T {
  const callback = rest.find((each) => typeof each === 'function')
  if (callback) process.nextTick(callback as () => void)
  return result
}
