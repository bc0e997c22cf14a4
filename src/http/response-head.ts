import { ChannelkitError, shown } from '../errors.ts'
import type { HttpResponse } from '../message-formats.ts'

/** What a token of a header's name may have, RFC 9110 section 5.6.2. */
const headerName = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/
/** What may not stand in a header's value: it would begin another header or end the head. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what it looks for.
const badInValue = /[\x00-\x08\x0a-\x1f\x7f]/

/** The headers of an answer, with its content type where it has none. */
export function responseHeaders({ headers = [], content_type }: HttpResponse): [string, string][] {
  const list = headers.map(([name, value]): [string, string] => [name, value])
  if (content_type !== undefined && !list.some(([name]) => name.toLowerCase() === 'content-type')) {
    list.push(['content-type', content_type])
  }
  return list
}

/**
 * Headers of one connection, not of the answer (RFC 9110 section 7.6.1): the interface server has its
 * own.
 */
export const hopByHop: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'transfer-encoding',
  'upgrade',
  'trailer',
])

/** @throws {ChannelkitError} `ERR_INVALID_CONTENT` for a status outside 200–599. */
export function checkStatus(status: number): void {
  if (Number.isInteger(status) && status >= 200 && status <= 599) return
  throw new ChannelkitError(
    'ERR_INVALID_CONTENT',
    `the status of a response is ${shown(status)}; give 200-599`,
  )
}

/**
 * Checks what is about to leave as the head of an answer.
 *
 * @throws {ChannelkitError} `ERR_INVALID_CONTENT` for a status outside 200–599 or a header that
 *   would not stay one header.
 */
export function checkResponseHead(content: HttpResponse): void {
  checkStatus(content.status ?? 200)
  for (const [name, value] of responseHeaders(content)) {
    if (typeof name !== 'string' || !headerName.test(name)) {
      throw new ChannelkitError(
        'ERR_INVALID_CONTENT',
        `a response has a header named ${shown(name)}; use a token`,
      )
    }
    if (typeof value !== 'string' || badInValue.test(value)) {
      throw new ChannelkitError(
        'ERR_INVALID_CONTENT',
        `the response header ${name} is ${shown(value)}; leave out control characters`,
      )
    }
  }
}
