import { bodyStream } from '../http/client-link.ts'
import { makeRequest, type ResponseSink, writeResponse } from '../http/request-response.ts'
import { isPromise } from '../internal/is-promise.ts'
import { writeLentResponse } from './lent-body.ts'
import { rememberRequest, type ViewRequest, viewRequestOf } from './view-request.ts'

/** Has a fetch-style app answer a request. */
export async function runFetchView(
  fetch: (request: Request) => unknown,
  view: ViewRequest,
): Promise<void> {
  const { message, lent, partBytes } = view
  const { content } = message
  if (!lent) view.link
  const body = content.more_content ? bodyStream(content.body, view.link) : content.body
  const request = makeRequest(content, body)
  // A signal in the request's options would cost half as much as the request.
  Object.defineProperty(request, 'signal', viewSignal)
  rememberRequest(request, view)
  if (lent) view.onDefer = () => lent.giveBack()
  const answer = fetch(request)
  const response = isPromise(answer) ? await untilLost(answer, view) : answer
  if (view.hasLostClient) {
    if (response instanceof Response) await response.body?.cancel()
    return
  }
  if (view.isDeferred) {
    if (response instanceof Response) await response.body?.cancel()
    return
  }
  if (!isResponse(response)) {
    throw new TypeError(
      `the app answered ${content.method} ${content.path} with ${String(response)}; return a Response`,
    )
  }
  if (lent) await writeLentResponse(response, view, lent)
  else await writeResponse(response, sinkOf(view), partBytes, content.method === 'HEAD')
}

/**
 * What the app answers; undefined when nobody wants it any more before, so that an app which never
 * answers is not waited for. The body of one that answers later is given up.
 */
function untilLost(answer: PromiseLike<unknown>, view: ViewRequest): Promise<unknown> {
  return new Promise((resolve, reject) => {
    let hasAnswered = false
    const lose = (): void => {
      view.takenBack()
      if (!view.hasLostClient || hasAnswered) return
      resolve(undefined)
      answer.then(
        (late) => (late instanceof Response ? late.body?.cancel() : undefined),
        () => {},
      )
    }
    if (view.lent) view.lent.onOver = lose
    else view.link.onClose = lose
    answer.then((response) => {
      hasAnswered = true
      resolve(response)
    }, reject)
  })
}

function sinkOf(view: ViewRequest): ResponseSink {
  const { link } = view
  return {
    send(part) {
      view.hasBegun = true
      return link.send(part)
    },
    async sendPart(part) {
      await link.sendPart(part)
      view.hasBegun = true
      view.streams()
    },
    get signal() {
      return link.signal
    },
  }
}

/** Not by class alone: an app may bring a `Response` of its own. */
function isResponse(value: unknown): value is Response {
  return (
    value instanceof Response ||
    (typeof value === 'object' &&
      value !== null &&
      'status' in value &&
      'headers' in value &&
      'body' in value)
  )
}

const viewSignal: PropertyDescriptor = {
  configurable: true,
  get(this: Request) {
    return viewRequestOf(this)?.signal
  },
}
