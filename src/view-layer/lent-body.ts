import type { ServerResponse } from 'node:http'
import type { LocalRequest } from '../http/local-requests.ts'
import { endWith } from '../http/response-end.ts'
import { checkStatus, hopByHop } from '../http/response-head.ts'
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
    response.end()
    lent.finished()
    return
  }
  const reader = answer.body.getReader()
  try {
    const { done, value } = await reader.read()
    if (done) {
      response.end()
      lent.finished()
      return
    }
    const next = reader.read()
    next.catch(() => {})
    const isWhole = await endsSoon(next)
    if (view.message.content.method === 'HEAD') {
      // Its length is known only when nothing follows.
      if (isWhole && !response.hasHeader('content-length')) {
        response.setHeader('content-length', value.byteLength)
      }
      response.end()
      lent.finished()
      if (!isWhole) await reader.cancel()
    } else if (isWhole) {
      endWith(response, value)
      lent.finished()
    } else {
      await stream(value, next, reader, view, lent)
    }
  } catch (error) {
    await reader.cancel(error).catch(() => {})
    throw error
  }
}

function writeHeaders({ status, headers }: Response, response: ServerResponse): void {
  checkStatus(status)
  response.statusCode = status
  for (const [name, value] of headers) {
    if (name !== 'set-cookie' && !hopByHop.has(name)) response.setHeader(name, value)
  }
  const cookies = headers.getSetCookie()
  if (cookies.length > 0) response.setHeader('set-cookie', cookies)
}

/** Whether nothing follows; waits a turn of the event loop at most. */
async function endsSoon(next: Promise<{ readonly done: boolean }>): Promise<boolean> {
  let isDone: boolean | undefined
  next.then(
    ({ done }) => {
      isDone = done
    },
    () => {
      isDone = false
    },
  )
  // A body that is there already takes some microtasks, which cost less than a turn.
  for (let step = 0; step < 8 && isDone === undefined; step++) await undefined
  if (isDone === undefined) await new Promise(setImmediate)
  return isDone === true
}

async function stream(
  first: Uint8Array,
  second: ReturnType<ReadableStreamDefaultReader<Uint8Array>['read']>,
  reader: ReadableStreamDefaultReader<Uint8Array>,
  view: ViewRequest,
  lent: LocalRequest,
): Promise<void> {
  const { response } = lent
  lent.onOver = () => {
    view.takenBack()
    // A stream may be silent for long.
    if (lent.isTakenBack) reader.cancel().catch(() => {})
  }
  let chunk = first
  let next = second
  for (;;) {
    if (lent.isTakenBack) return
    lent.moved()
    if (!response.write(chunk)) await drained(response)
    const { done, value } = await next
    if (done) break
    chunk = value
    next = reader.read()
    next.catch(() => {})
  }
  if (lent.isTakenBack) return
  response.end()
  lent.finished()
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
