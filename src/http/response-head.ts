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
 * Checks the length that an answer says it has: with two of them, client and proxies could disagree
 * where it ends (RFC 9112 section 6.3).
 *
 * @throws {ChannelkitError} `ERR_INVALID_CONTENT` for more than one, and for one that is no number.
 */
export function checkContentLength(value: unknown): void {
  const values: readonly unknown[] = Array.isArray(value) ? value : [value]
  if (values.length === 1 && /^\d+$/.test(String(values[0]))) return
  throw new ChannelkitError(
    'ERR_INVALID_CONTENT',
    `the content-length of a response is ${shown(value)}; give one whole number, or leave it out`,
  )
}

/**
 * Checks what is about to leave as the head of an answer.
 *
 * @throws {ChannelkitError} `ERR_INVALID_CONTENT` for a status outside 200–599, a header that would
 *   not stay one header, and more than one length.
 */
export function checkResponseHead(content: HttpResponse): void {
  checkStatus(content.status ?? 200)
  let lengths: string[] | undefined
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
    if (name.length === 14 && name.toLowerCase() === 'content-length') {
      lengths ??= []
      lengths.push(value)
    }
  }
  if (lengths) checkContentLength(lengths)
}
