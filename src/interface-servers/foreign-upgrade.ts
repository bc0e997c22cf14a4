import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

// How many entries of `rawHeaders` Node keeps where a server does not say.
const defaultRawLimit = 2_000

/** Whether a request asks to upgrade to WebSocket, and not to something else. */
export function asksForWebSocket({ headers }: IncomingMessage): boolean {
  return /(?:^|,)[ \t]*websocket[ \t]*(?:,|$)/i.test(headers.upgrade ?? '')
}

/**
 * Serves a request to upgrade to a protocol that nobody here speaks as an ordinary one (RFC 9110
 * section 7.8): some clients begin every plain connection by asking for HTTP/2. Node reads nothing
 * further as HTTP once it has emitted `upgrade`, so the server is given the connection anew, with
 * the same request but for its Upgrade header.
 *
 * @param socket - as the `upgrade` event has it, with what was read behind the head.
 * @returns whether that can be; not with a head that Node has shortened.
 */
export function serveWithoutUpgrade(
  server: Server,
  request: IncomingMessage,
  socket: Socket,
  rest: Buffer,
): boolean {
  const { rawHeaders } = request
  const limit = server.maxHeadersCount ? server.maxHeadersCount * 2 : defaultRawLimit
  // The length of its body might be among what is missing.
  if (rawHeaders.length >= limit) return false
  const lines = [`${request.method} ${request.url} HTTP/${request.httpVersion}`]
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const name = rawHeaders[index] as string
    if (name.toLowerCase() !== 'upgrade') lines.push(`${name}: ${rawHeaders[index + 1]}`)
  }
  const head = Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1')
  socket.on('error', ignoreError)
  serveAgain(server, socket, Buffer.concat([head, rest]))
  return true
}

function serveAgain(server: Server, socket: Socket, bytes: Buffer): void {
  const { _httpMessage: before } = socket as Socket & { _httpMessage?: ServerResponse | null }
  if (before) {
    // It stands behind requests that have no answer yet.
    before.once('close', () => serveAgain(server, socket, bytes))
    return
  }
  if (socket.destroyed) return
  socket.off('error', ignoreError)
  socket.unshift(bytes)
  server.emit('connection', socket)
}

function ignoreError(): void {}
