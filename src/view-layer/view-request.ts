import type { IncomingMessage } from 'node:http'
import { ChannelkitError } from '../errors.ts'
import { type ClientLink, ClientLinks, clientLeft } from '../http/client-link.ts'
import type { LocalRequest } from '../http/local-requests.ts'
import { partBytesFor } from '../http/part-window.ts'
import type { Message } from '../message.ts'

/** One request as the view layer handles it. */
export class ViewRequest {
  readonly message: Message<'http.request'>
  /** The client's own request and response, where it is connected to this process. */
  readonly lent: LocalRequest | undefined
  /** Whether some of the answer has been sent by its link. */
  hasBegun = false
  /** Whether a consumer answers it later. */
  isDeferred = false
  /** Called when it is deferred, for views that do not return. */
  onDefer: (() => void) | undefined
  /** Whether a first part of the answer is out and others follow. */
  hasStreamed = false
  /** Called when that is so. */
  onStream: (() => void) | undefined
  /** Called with what went wrong beside the view's own failure, such as a write behind the end. */
  onFault: ((error: Error) => void) | undefined
  #link: ClientLink | undefined
  #controller: AbortController | undefined

  constructor(message: Message<'http.request'>, lent: LocalRequest | undefined) {
    this.message = message
    this.lent = lent
  }

  /** Opened when it is first asked for: a view that writes on the client's own response needs none. */
  get link(): ClientLink {
    const { backend, content } = this.message
    this.#link ??= ClientLinks.of(backend).open(content.reply_channel)
    return this.#link
  }

  get partBytes(): number {
    return partBytesFor(this.message.backend.limits.maxContentBytes)
  }

  /** Aborts when the client has left. */
  get signal(): AbortSignal {
    if (!this.lent) return this.link.signal
    if (!this.#controller) {
      this.#controller = new AbortController()
      if (this.hasLostClient) this.#controller.abort(clientLeft())
    }
    return this.#controller.signal
  }

  /** Whether nobody waits for the answer any more. */
  get hasLostClient(): boolean {
    return this.lent ? this.lent.isTakenBack && !this.isDeferred : this.link.isClosed
  }

  /** To be called when a first part of the answer is out and others follow. */
  streams(): void {
    this.hasStreamed = true
    this.onStream?.()
    this.onStream = undefined
  }

  /** To be called when the request was taken back. */
  takenBack(): void {
    if (this.hasLostClient) this.#controller?.abort(clientLeft())
  }

  /** Lets go of its link. */
  end(): void {
    this.#link?.end()
  }
}

// On the request itself: a weak map of every request would cost the garbage collector more than
// all else that is done for one.
const key = Symbol('channelkit.view')

/** Remembers what request of an app's kind stands for. */
export function rememberRequest(request: Request | IncomingMessage, view: ViewRequest): void {
  ;(request as { [key]?: ViewRequest })[key] = view
}

export function viewRequestOf(request: object): ViewRequest | undefined {
  return (request as { [key]?: ViewRequest })[key]
}

/** A view's request: a WHATWG `Request`, Node's, or a context that has one, as Hono's `c` has. */
export type AnyRequest = Request | IncomingMessage | { readonly req: { readonly raw: Request } }

/**
 * The message that a view's request came in.
 *
 * @throws {ChannelkitError} `ERR_INVALID_ARGUMENT` for a request that did not come through
 *   Channelkit.
 */
export function messageOf(request: AnyRequest): Message<'http.request'> {
  return found(request).message
}

/**
 * Leaves the answer to whoever sends it on the request's reply channel, so that no worker is held
 * meanwhile. The view returns what this returns; a Node handler just ends.
 *
 * @example
 * ```ts
 * app.get('/news', async (c) => {
 *   await Group('news').add(messageOf(c).replyChannel)
 *   return defer(c)
 * })
 * ```
 * @throws {ChannelkitError} `ERR_INVALID_ARGUMENT` for a request that did not come through
 *   Channelkit.
 */
export function defer(request: AnyRequest): Response {
  const view = found(request)
  view.isDeferred = true
  view.onDefer?.()
  return new Response(null, { status: 202 })
}

function found(request: AnyRequest): ViewRequest {
  const inner =
    'req' in request && !('httpVersion' in request)
      ? (request as { readonly req: { readonly raw: Request } }).req.raw
      : request
  const view = viewRequestOf(inner)
  if (view) return view
  throw new ChannelkitError(
    'ERR_INVALID_ARGUMENT',
    'the request did not come through Channelkit; pass the one the app was called with, and run the app as the config’s app',
  )
}
