import type { IncomingMessage } from 'node:http'

/** The answer to a request of a kind that this server does not serve. */
export interface Refusal {
  readonly status: number
  readonly text: string
  readonly headers: Readonly<Record<string, string>>
}

const closing = { connection: 'close' }
const noTrace: Refusal = {
  status: 405,
  text: 'Method Not Allowed',
  headers: { allow: 'GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS' },
}
// What follows such a head another server may frame in another way: the connection ends with it.
const badFraming: Refusal = { status: 400, text: 'Bad Request', headers: closing }
const unknownCoding: Refusal = { status: 501, text: 'Not Implemented', headers: closing }
const unknownVersion: Refusal = {
  status: 505,
  text: 'HTTP Version Not Supported',
  headers: closing,
}

/**
 * Tells what a request asks for that no app is asked about: to be sent back (TRACE), a version of
 * HTTP other than 1.x, or a transfer coding other than chunked, which HTTP/1.0 does not have at all
 * (RFC 9112 sections 2.3, 6.1 and 6.3). Undefined for all others.
 */
export function unsupported(request: IncomingMessage): Refusal | undefined {
  if (request.httpVersionMajor !== 1) return unknownVersion
  const coding = request.headers['transfer-encoding']
  if (coding !== undefined) {
    if (request.httpVersionMinor === 0) return badFraming
    if (coding.toLowerCase() !== 'chunked') return unknownCoding
  }
  return request.method === 'TRACE' ? noTrace : undefined
}
