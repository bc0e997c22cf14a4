import type { IncomingMessage } from 'node:http'
import { ChannelkitError, shown } from '../errors.ts'
import { parseCookies, parseQuery } from '../http/query.ts'
import type { Address, HeaderList, ValueLists } from '../message-formats.ts'
import { type Peer, plainAddress } from './peer.ts'

/** What the content of `http.request` and `websocket.connect` have in common, but for the reply channel. */
export interface RequestHeadContent {
  readonly path: string
  readonly raw_path: string
  readonly query_string: string
  readonly get: ValueLists
  readonly cookies: Readonly<Record<string, string>>
  readonly headers: HeaderList
  readonly client: Address
  readonly server: Address
}

/**
 * Translates the head of a request.
 *
 * @throws {ChannelkitError} `ERR_BAD_REQUEST` for a path that cannot be decoded, that is no path or
 *   that a URL parser would read as another, and for more than one Host header (RFC 9112 section
 *   3.2).
 */
export function requestHead(request: IncomingMessage, { client }: Peer): RequestHeadContent {
  const { rawPath, query } = splitTarget(request.url ?? '')
  const headers = headerList(request.rawHeaders)
  return {
    path: decodePath(rawPath),
    raw_path: rawPath,
    query_string: query,
    get: parseQuery(query),
    cookies: parseCookies(request.headers.cookie),
    headers,
    client,
    server: [plainAddress(request.socket.localAddress), request.socket.localPort ?? 0],
  }
}

/** What a target has that `ambiguous` may find; most have none of it. */
const suspicious = /[\\#]|\/(?:\.|%2e)/i
/** What the URL parser reads as another path, or leaves out of it. */
const ambiguous = /[\\#]|\/(?:\.|%2e){1,2}(?:\/|$)/i

/** Splits a request target into path and query. A target in absolute form gives up its origin. */
function splitTarget(target: string): { rawPath: string; query: string } {
  if (suspicious.test(target)) checkTarget(target)
  const local = target.startsWith('/') || target === '*' ? target : withoutOrigin(target)
  const mark = local.indexOf('?')
  return mark === -1
    ? { rawPath: local, query: '' }
    : { rawPath: local.slice(0, mark), query: local.slice(mark + 1) }
}

function checkTarget(target: string): void {
  if (!target.includes('#') && !ambiguous.test(target.split('?', 1)[0] as string)) return
  throw new ChannelkitError(
    'ERR_BAD_REQUEST',
    `the request target is ${shown(target)}; send a path without dot segments, \\ and #`,
  )
}

function withoutOrigin(target: string): string {
  const match = /^https?:\/\/[^/?#]+(.*)$/i.exec(target)
  if (!match) {
    throw new ChannelkitError(
      'ERR_BAD_REQUEST',
      `the request target is ${shown(target)}; send a path`,
    )
  }
  const rest = match[1] ?? ''
  return rest.startsWith('/') ? rest : `/${rest}`
}

function decodePath(rawPath: string): string {
  if (!rawPath.includes('%')) return rawPath
  try {
    return decodeURIComponent(rawPath)
  } catch {
    throw new ChannelkitError(
      'ERR_BAD_REQUEST',
      `the path ${shown(rawPath)} is not percent-encoded UTF-8`,
    )
  }
}

function headerList(rawHeaders: readonly string[]): HeaderList {
  const headers: [string, string][] = []
  let hosts = 0
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const name = (rawHeaders[index] as string).toLowerCase()
    if (name === 'host') hosts++
    headers.push([name, rawHeaders[index + 1] as string])
  }
  if (hosts > 1) {
    throw new ChannelkitError('ERR_BAD_REQUEST', 'the request has two Host headers; send one')
  }
  return headers
}
