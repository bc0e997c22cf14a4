import type { IncomingMessage, ServerResponse } from 'node:http'
import type { ChannelBackend } from '../backends/channel-backend.ts'

/**
 * A request whose client is connected to this process, lent to the view layer: the view writes its
 * answer on the client's own response, and only the message has gone through the channel.
 */
export interface LocalRequest {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  /**
   * Whether the view is to write nothing more: its client has left, its time is over, or it gave
   * the request back.
   */
  readonly isTakenBack: boolean
  /** Called when the view has finished its answer, or is to write nothing more. */
  onOver: (() => void) | undefined
  /** Tells that something of the answer was written. */
  moved(): void
  /** Tells that all of the answer was written. */
  finished(): void
  /** Ends the connection before the answer is complete. */
  cut(): void
  /** Leaves the answer to whoever sends it on the reply channel. */
  giveBack(): void
}

/** An interface server, to whose clients the workers of its process answer directly. */
export interface RequestLender {
  /**
   * Lends the request that is answered on `replyChannel`. Undefined when it is not this server's,
   * when it is over, and when it is not what the client sent: it has a body, which has been read,
   * or came through a trusted proxy.
   */
  lend(replyChannel: string): LocalRequest | undefined
}

const lendersOf = new WeakMap<ChannelBackend, Set<RequestLender>>()

/**
 * Lets the view layer of this process borrow from `lender` what has come to it through `backend`.
 *
 * @returns how to end that.
 */
export function addRequestLender(backend: ChannelBackend, lender: RequestLender): () => void {
  let lenders = lendersOf.get(backend)
  if (!lenders) {
    lenders = new Set()
    lendersOf.set(backend, lenders)
  }
  lenders.add(lender)
  return () => lendersOf.get(backend)?.delete(lender)
}

/** Borrows the request that is answered on `replyChannel`, where its client is in this process. */
export function borrowRequest(
  backend: ChannelBackend,
  replyChannel: string,
): LocalRequest | undefined {
  const lenders = lendersOf.get(backend)
  if (!lenders) return undefined
  for (const lender of lenders) {
    const lent = lender.lend(replyChannel)
    if (lent) return lent
  }
  return undefined
}
