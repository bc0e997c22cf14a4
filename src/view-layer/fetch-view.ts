import { bodyStream } from '../http/client-link.ts'
import { makeRequest, writeResponse } from '../http/request-response.ts'
import { rememberRequest, type ViewRequest, viewRequestOf } from './view-request.ts'

/** Has a fetch-style app answer a request. */
export async function runFetchView(
  fetch: (request: Request) => unknown,
  view: ViewRequest,
): Promise<void> {
  const { link, partBytes } = view
  const { content } = view.message
  const body = content.more_content ? bodyStream(content.body, link) : content.body
  const request = makeRequest(content, body)
  // A signal in the request's options would cost half as much as the request.
  Object.defineProperty(request, 'signal', linkSignal)
  rememberRequest(request, view)
  const response = await fetch(request)
  if (view.isDeferred) {
    if (response instanceof Response) await response.body?.cancel()
    return
  }
  if (!isResponse(response)) {
    throw new TypeError(
      `the app answered ${content.method} ${content.path} with ${String(response)}; return a Response`,
    )
  }
  const sink = {
    send: (part: Parameters<typeof link.send>[0]) => {
      view.hasBegun = true
      return link.send(part)
    },
    sendPart: async (part: Parameters<typeof link.send>[0]) => {
      await link.sendPart(part)
      view.hasBegun = true
    },
    get signal() {
      return link.signal
    },
  }
  await writeResponse(response, sink, partBytes, content.method === 'HEAD')
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

const linkSignal: PropertyDescriptor = {
  configurable: true,
  get(this: Request) {
    return viewRequestOf(this)?.link.signal
  },
}
