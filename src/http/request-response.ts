import type { Channel } from '../channel.ts'
import { ChannelkitError, shown } from '../errors.ts'
import type { HttpRequest, HttpResponse } from '../message-formats.ts'
import { parseCookies, parseQuery } from './query.ts'
import { responseHeaders } from './response-head.ts'

/** Statuses without a body, RFC 9110 section 6.4.1. */
const bodiless: ReadonlySet<number> = new Set([101, 103, 204, 205, 304])

/**
 * Makes the WHATWG `Request` that an `http.request`'s content stands for.
 *
 * @throws {ChannelkitError} `ERR_BAD_REQUEST` when its Host makes no URL.
 */
export function decodeRequest(content: HttpRequest, init: { signal?: AbortSignal } = {}): Request {
  const host = content.headers.find(([name]) => name === 'host')?.[1] ?? content.server.join(':')
  const query = content.query_string === '' ? '' : `?${content.query_string}`
  const url = `${content.scheme}://${host}${content.raw_path === '*' ? '/*' : content.raw_path}${query}`
  if (!URL.canParse(url)) {
    throw new ChannelkitError(
      'ERR_BAD_REQUEST',
      `the request's URL is ${shown(url)}; check its Host`,
    )
  }
  const headers = new Headers()
  for (const [name, value] of content.headers) headers.append(name, value)
  const { method, body } = content
  const hasBody = body !== undefined && body.byteLength > 0 && method !== 'GET' && method !== 'HEAD'
  return new Request(url, {
    method,
    headers,
    ...init,
    ...(hasBody && { body: body as Uint8Array<ArrayBuffer> }),
  })
}

/**
 * Makes the content of an `http.request` out of a WHATWG `Request`, for tests and for scripts that
 * ask a site's own consumers.
 */
export async function encodeRequest(
  request: Request,
  replyChannel: Channel | string,
): Promise<HttpRequest> {
  const url = new URL(request.url)
  const headers: [string, string][] = [...request.headers]
  if (!request.headers.has('host')) headers.unshift(['host', url.host])
  const body = new Uint8Array(await request.arrayBuffer())
  const query = url.search.slice(1)
  return {
    reply_channel: typeof replyChannel === 'string' ? replyChannel : replyChannel.name,
    method: request.method,
    scheme: url.protocol === 'https:' ? 'https' : 'http',
    http_version: '1.1',
    path: decodeURIComponent(url.pathname),
    raw_path: url.pathname,
    query_string: query,
    get: parseQuery(query),
    cookies: parseCookies(request.headers.get('cookie') ?? undefined),
    headers,
    client: ['127.0.0.1', 0],
    server: [url.hostname, Number(url.port) || (url.protocol === 'https:' ? 443 : 80)],
    ...(body.byteLength > 0 && { body }),
  }
}

/**
 * Makes the content that answers an `http.request`, out of a WHATWG `Response` whose body is read
 * to its end. For one that streams, see {@link sendResponse}.
 *
 * @example
 * ```ts
 * await message.replyChannel.send(await encodeResponse(new Response('Hello world!')))
 * ```
 */
export async function encodeResponse(response: Response): Promise<HttpResponse> {
  const content = new Uint8Array(await response.arrayBuffer())
  return { ...responseHead(response), content }
}

/** Makes a WHATWG `Response` out of the content that answers an `http.request`. */
export function decodeResponse(content: HttpResponse): Response {
  const status = content.status ?? 200
  const headers = new Headers()
  for (const [name, value] of responseHeaders(content)) headers.append(name, value)
  const body = (content.content ?? null) as string | Uint8Array<ArrayBuffer> | null
  return new Response(bodiless.has(status) ? null : body, { status, headers })
}

/**
 * Answers an `http.request` with a `Response`, in parts as its body comes: what is there within a
 * turn of the event loop goes in one message.
 *
 * @param replyChannel - the request's.
 */
export async function sendResponse(
  response: Response,
  replyChannel: { send(content: HttpResponse): Promise<void> },
): Promise<void> {
  let head: HttpResponse = responseHead(response)
  if (!response.body) {
    await replyChannel.send(head)
    return
  }
  const reader = response.body.getReader()
  let read = reader.read()
  try {
    for (;;) {
      const { done, value } = await read
      if (done) break
      read = reader.read()
      read.catch(() => {})
      const next = await Promise.race([read, nextTurn()])
      for (let start = 0; start < value.byteLength; start += maxPartBytes) {
        const content = value.subarray(start, start + maxPartBytes)
        if (next?.done && start + maxPartBytes >= value.byteLength) {
          await replyChannel.send({ ...head, content })
          return
        }
        await replyChannel.send({ ...head, content, more_content: true })
        head = {}
      }
    }
    await replyChannel.send(head)
  } catch (error) {
    await reader.cancel(error).catch(() => {})
    throw error
  }
}

// A quarter of the largest content by default, so that a part always fits.
const maxPartBytes = 262_144

function nextTurn(): Promise<undefined> {
  return new Promise((resolve) => setImmediate(() => resolve(undefined)))
}

function responseHead(response: Response): HttpResponse {
  const headers: [string, string][] = []
  for (const [name, value] of response.headers) {
    if (name !== 'set-cookie') headers.push([name, value])
  }
  for (const cookie of response.headers.getSetCookie()) headers.push(['set-cookie', cookie])
  return { status: response.status, headers }
}
