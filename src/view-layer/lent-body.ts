import type { ServerResponse } from 'node:http'
import type { LocalRequest } from '../http/local-requests.ts'
import { bodyBytes, soon } from '../http/response-body.ts'
import { endWith } from '../http/response-end.ts'
import { checkContentLength, checkStatus, hopByHop } from '../http/response-head.ts'
import type { ViewRequest } from './view-request.ts'

/** Writes a fetch app's answer on the client's own response, in parts as its body comes. */
export async function writeLentResponse(
  answer: Response,
  view: ViewRequest,
  lent: LocalRequest,
): Promise<void> {
  const { response } = lent
  if (lent.isTakenBack) {
    await answer.body?.cancel()
    return
  }
  writeHeaders(answer, response)
  if (!answer.body) {
    endAnswer(lent, undefined)
    return
  }
  const reader = answer.body.getReader() as BodyReader
  lent.onOver = () => {
    view.takenBack()
    // A stream may be silent for long.
    if (lent.isTakenBack) reader.cancel().catch(() => {})
  }
  try {
    await writeBody(reader, view, lent)
  } catch (error) {
    await reader.cancel(error).catch(() => {})
    throw error
  }
}

type BodyReader = ReadableStreamDefaultReader<unknown>

async function writeBody(reader: BodyReader, view: ViewRequest, lent: LocalRequest): Promise<void> {
  const { response } = lent
  const isHead = view.message.content.method === 'HEAD'
  const read = reader.read()
  read.catch(() => {})
  const first = await soon(read)
  if (lent.isTakenBack) return
  if (first?.done) {
    endAnswer(lent, undefined)
    return
  }
  const next = first && reader.read()
  next?.catch(() => {})
  const isWhole = next ? (await soon(next))?.done === true : false
  if (lent.isTakenBack) return
  if (isHead) {
    // Its length is known only when nothing follows.
    if (first && isWhole && !response.hasHeader('content-length')) {
      response.setHeader('content-length', bodyBytes(first.value).byteLength)
    }
    endAnswer(lent, undefined)
    if (!isWhole) await reader.cancel()
  } else if (first && isWhole) {
    endAnswer(lent, bodyBytes(first.value))
  } else {
    await stream(first ? bodyBytes(first.value) : undefined, next ?? read, reader, view, lent)
  }
}

function endAnswer(lent: LocalRequest, body: Uint8Array | undefined): void {
  endWith(lent.response, body)
  lent.finished()
}

function writeHeaders({ status, headers }: Response, response: ServerResponse): void {
  checkStatus(status)
  response.statusCode = status
  const length = headers.get('content-length')
  if (length !== null) checkContentLength(length)
  for (const [name, value] of headers) {
    if (name !== 'set-cookie' && !hopByHop.has(name)) response.setHeader(name, value)
  }
  const cookies = headers.getSetCookie()
  if (cookies.length > 0) response.setHeader('set-cookie', cookies)
}

async function stream(
  first: Uint8Array | undefined,
  second: ReturnType<BodyReader['read']>,
  reader: BodyReader,
  view: ViewRequest,
  lent: LocalRequest,
): Promise<void> {
  const { response } = lent
  lent.moved()
  let hasRoom = true
  // Without a first part the head goes alone: its client may wait for nothing else.
  if (first) hasRoom = response.write(first)
  else response.flushHeaders()
  view.streams()
  let next = second
  for (;;) {
    if (!hasRoom) await drained(response)
    const { done, value } = await next
    if (lent.isTakenBack) return
    if (done) break
    next = reader.read()
    next.catch(() => {})
    lent.moved()
    hasRoom = response.write(bodyBytes(value))
  }
  endAnswer(lent, undefined)
}

async function drained(response: ServerResponse): Promise<void> {
  if (response.destroyed) return
  await new Promise<void>((resolve) => {
    const settle = (): void => {
      response.off('drain', settle)
      response.off('close', settle)
      resolve()
    }
    response.on('drain', settle)
    response.on('close', settle)
  })
}
