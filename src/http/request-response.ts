import { backendOf, type Channel } from '../channel.ts'
import { ChannelkitError, shown } from '../errors.ts'
import type { Message } from '../message.ts'
import type { Address, HttpRequest, HttpResponse } from '../message-formats.ts'
import { bodyStream, ClientLinks } from './client-link.ts'
import { maxPartBytes, partBytesFor } from './part-window.ts'
import { parseCookies, parseQuery } from './query.ts'
import { bodyBytes, soon } from './response-body.ts'
import { checkResponseHead, responseHeaders } from './response-head.ts'

/** Statuses without a body, RFC 9110 section 6.4.1. */
const bodiless: ReadonlySet<number> = new Set([101, 103, 204, 205, 304])

/**
 * Makes the WHATWG `Request` that an `http.request` stands for.
 *
 * @param source - the message, or its content where the body is whole. Of a message whose body
 *   comes in parts, the request's body reads them as they are wanted.
 * @throws {ChannelkitError} `ERR_BAD_REQUEST` when its Host makes no URL; `ERR_INVALID_ARGUMENT`
 *   for content whose body comes in parts.
 */
export function decodeRequest(
  source: HttpRequest | Message<'http.request'>,
  init: { signal?: AbortSignal } = {},
): Request {
  if (!isMessage(source)) {
    if (source.more_content) {
      throw new ChannelkitError(
        'ERR_INVALID_ARGUMENT',
        'the body of the request comes in parts; give decodeRequest the message instead of its content',
      )
    }
    return makeRequest(source, source.body, init)
  }
  const { content, backend } = source
  if (!content.more_content) return makeRequest(content, content.body, init)
  const link = ClientLinks.of(backend).open(content.reply_channel)
  return makeRequest(
    content,
    bodyStream(content.body, link, () => link.end()),
    init,
  )
}

function isMessage(
  source: HttpRequest | Message<'http.request'>,
): source is Message<'http.request'> {
  return 'channel' in source && 'backend' in source
}

/**
 * Makes a `Request` of an `http.request`'s head and a body.
 *
 * @throws {ChannelkitError} `ERR_BAD_REQUEST` when its Host makes no URL, or its method no request.
 */
export function makeRequest(
  content: HttpRequest,
  body: Uint8Array | ReadableStream<Uint8Array> | undefined,
  init: { readonly signal?: AbortSignal } = {},
): Request {
  const { method, scheme, raw_path, query_string } = content
  const host = content.headers.find(([name]) => name === 'host')?.[1] || serverHost(content.server)
  const path = raw_path === '*' ? '/*' : raw_path
  const url = `${scheme}://${host}${path}${query_string === '' ? '' : `?${query_string}`}`
  const headers = content.headers as [string, string][]
  const isEmpty = body === undefined || (body instanceof Uint8Array && body.byteLength === 0)
  // A Host with one of these would make another URL than the one that was asked for.
  if (/[\s/?#@\\]/.test(host) || !path.startsWith('/')) throw badUrl(url)
  let request: Request
  try {
    request =
      isEmpty || method === 'GET' || method === 'HEAD'
        ? new Request(url, { method, headers, ...init })
        : new Request(url, {
            method,
            headers,
            ...init,
            body: body as Uint8Array<ArrayBuffer> | ReadableStream<Uint8Array>,
            ...{ duplex: 'half' },
          })
  } catch (error) {
    if (!URL.canParse(url)) throw badUrl(url)
    throw new ChannelkitError(
      'ERR_BAD_REQUEST',
      `the method ${shown(method)} with its headers makes no Request; ${String(error)}`,
    )
  }
  if (request.url !== url && !isOf(new URL(url), `${scheme}://${host}`, path)) throw badUrl(url)
  return request
}

/** Whether a URL has the host and the path that these two make each by itself. */
function isOf({ host, pathname }: URL, origin: string, path: string): boolean {
  return new URL(origin).host === host && new URL(`http://localhost${path}`).pathname === pathname
}

/** What stands for the Host of a request that has none, as HTTP/1.0 allows. */
function serverHost([address, port]: Address): string {
  const isIPv6 = address.includes(':') && !address.startsWith('[')
  // A URL has no room for the zone of a link-local address.
  return `${isIPv6 ? `[${address.split('%', 1)[0]}]` : address}:${port}`
}

function badUrl(url: string): ChannelkitError {
  return new ChannelkitError(
    'ERR_BAD_REQUEST',
    `the request's URL is ${shown(url)}; check its Host and its path`,
  )
}

/**
 * Makes the content of an `http.request` out of a WHATWG `Request`, for tests and for scripts that
 * ask a site's own consumers.
 *
 * @throws {ChannelkitError} `ERR_INVALID_ARGUMENT` when its path is not percent-encoded UTF-8.
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
    path: decodedPath(url.pathname),
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

function decodedPath(path: string): string {
  try {
    return decodeURIComponent(path)
  } catch {
    throw new ChannelkitError(
      'ERR_INVALID_ARGUMENT',
      `the path ${shown(path)} is not percent-encoded UTF-8; encode it by encodeURIComponent`,
    )
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

/**
 * Makes a WHATWG `Response` out of the content that answers an `http.request` whole.
 *
 * @throws {ChannelkitError} `ERR_INVALID_ARGUMENT` for a part that others follow and for the end of
 *   an answer that is cut; `ERR_INVALID_CONTENT` for a status or a header that no answer may have.
 */
export function decodeResponse(content: HttpResponse): Response {
  if (content.more_content || 'abort' in content) {
    throw new ChannelkitError(
      'ERR_INVALID_ARGUMENT',
      `the answer ${content.more_content ? 'has more_content' : 'is cut by abort'}; give decodeResponse one that is whole`,
    )
  }
  checkResponseHead(content)
  const status = content.status ?? 200
  const headers = new Headers()
  for (const [name, value] of responseHeaders(content)) headers.append(name, value)
  const body = (content.content ?? null) as string | Uint8Array<ArrayBuffer> | null
  return new Response(bodiless.has(status) ? null : body, { status, headers })
}

/**
 * Answers an `http.request` with a `Response`, in parts as its body comes: what is there within a
 * turn of the event loop goes in one message. A stream waits for a client that reads slowly.
 *
 * @param replyChannel - the request's.
 * @throws an `AbortError` when the client has left before a stream's end.
 */
export async function sendResponse(
  response: Response,
  replyChannel: { send(content: HttpResponse): Promise<void>; readonly name?: string },
): Promise<void> {
  const backend = backendOf(replyChannel)
  if (!backend || replyChannel.name === undefined) {
    const send = (content: HttpResponse): Promise<void> => replyChannel.send(content)
    await writeResponse(response, { send, sendPart: send }, maxPartBytes)
    return
  }
  const link = ClientLinks.of(backend).open(replyChannel.name)
  try {
    await writeResponse(response, link, partBytesFor(backend.limits.maxContentBytes))
  } finally {
    link.end()
  }
}

/** Where the parts of an answer go. */
export interface ResponseSink {
  /** Sends a whole answer, or the last part of one. */
  send(content: HttpResponse): Promise<void>
  /** Sends a part that others follow, as soon as the client has room for it. */
  sendPart(content: HttpResponse): Promise<void>
  readonly signal?: AbortSignal
}

/** Sends a `Response` to a sink; see {@link sendResponse}. */
export async function writeResponse(
  response: Response,
  sink: ResponseSink,
  partBytes: number,
  isHead = false,
): Promise<void> {
  let head: HttpResponse = responseHead(response)
  if (!response.body) {
    await sink.send(head)
    return
  }
  const reader = response.body.getReader() as ReadableStreamDefaultReader<unknown>
  let stopCancelling: (() => void) | undefined
  try {
    let read = reader.read()
    read.catch(() => {})
    let part = await soon(read)
    if (isHead) {
      await sink.send(await withLength(head, part, reader, partBytes))
      return
    }
    if (!part) {
      // Its client may wait for the head alone.
      await sink.sendPart({ ...head, more_content: true })
      head = {}
      stopCancelling = cancelOnAbort(reader, sink.signal)
      part = await read
    }
    while (!part.done) {
      const bytes = bodyBytes(part.value)
      read = reader.read()
      read.catch(() => {})
      const next = await soon(read)
      const isLast = next?.done === true
      for (let start = 0; start < bytes.byteLength; start += partBytes) {
        const content = bytes.subarray(start, start + partBytes)
        if (isLast && start + partBytes >= bytes.byteLength) {
          await sink.send({ ...head, content })
          return
        }
        await sink.sendPart({ ...head, content, more_content: true })
        head = {}
        stopCancelling ??= cancelOnAbort(reader, sink.signal)
      }
      part = next ?? (await read)
    }
    sink.signal?.throwIfAborted()
    await sink.send(head)
  } catch (error) {
    await reader.cancel(error).catch(() => {})
    throw error
  } finally {
    stopCancelling?.()
  }
}

/** The head that answers HEAD, with the body's length where that is known at once. */
async function withLength(
  head: HttpResponse,
  part: { readonly done: boolean; readonly value?: unknown } | undefined,
  reader: ReadableStreamDefaultReader<unknown>,
  partBytes: number,
): Promise<HttpResponse> {
  if (!part || part.done) {
    await reader.cancel()
    return head
  }
  const next = reader.read()
  next.catch(() => {})
  const bytes = bodyBytes(part.value)
  if ((await soon(next))?.done && bytes.byteLength <= partBytes) return { ...head, content: bytes }
  await reader.cancel()
  return head
}

/** Stops a stream that may be silent for long when its client leaves. */
function cancelOnAbort(
  reader: ReadableStreamDefaultReader<unknown>,
  signal: AbortSignal | undefined,
): () => void {
  const cancel = (): void => {
    reader.cancel(signal?.reason).catch(() => {})
  }
  signal?.addEventListener('abort', cancel, { once: true })
  return () => signal?.removeEventListener('abort', cancel)
}

function responseHead(response: Response): HttpResponse {
  const headers: [string, string][] = []
  for (const [name, value] of response.headers) {
    if (name !== 'set-cookie') headers.push([name, value])
  }
  for (const cookie of response.headers.getSetCookie()) headers.push(['set-cookie', cookie])
  return { status: response.status, headers }
}
