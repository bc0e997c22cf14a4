import { type IncomingMessage, STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import { type Server, WebSocket, WebSocketServer as WsServer } from 'ws'
import { ChannelkitError, errorTable, isChannelkitError } from '../errors.ts'
import { repeat } from '../internal/clock.ts'
import type { Hub } from './hub.ts'
import { originFault } from './origin.ts'
import type { PeerReader } from './peer.ts'
import { requestHead } from './request-head.ts'
import type { ResolvedWebSocketSettings } from './settings.ts'
import { type SocketTransport, WebSocketConnection } from './websocket-connection.ts'

// Sockets are pinged and kept alive a twentieth at a time, so that no turn has to do them all.
const bucketCount = 20
// Clients that do not answer a close are cut after this time.
const closeGraceMs = 5_000

/** A socket of the library that knows whose it is, so that all can share their listeners. */
class ClientSocket extends WebSocket {
  connection: WebSocketConnection | undefined
  /** When the last ping was sent that nothing has answered; 0 when none waits. */
  pingedAt = 0
  /** Those it is pinged together with. */
  bucket: Set<ClientSocket> | undefined
  /** The close code that says what was wrong with its frames; 0 when nothing was. */
  faultCode = 0
}

/**
 * Takes WebSocket handshakes and holds the sockets. No code of the site runs here: what clients do
 * goes out as messages, and what is sent to their reply channels and groups comes back.
 */
export class WebSocketServer {
  readonly #hub: Hub
  readonly #settings: ResolvedWebSocketSettings
  readonly #readPeer: PeerReader
  readonly #isProduction: boolean
  readonly #sockets: Server<typeof ClientSocket>
  readonly #connections = new Set<WebSocketConnection>()
  readonly #buckets: Set<ClientSocket>[] = Array.from({ length: bucketCount }, () => new Set())
  /** Ends the rounds of pings and keepalives, which run while there are sockets. */
  #stopRounds: (() => void) | undefined
  #nextBucket = 0
  #isClosing = false
  #onEmpty: (() => void) | undefined

  constructor(options: {
    readonly hub: Hub
    readonly settings: ResolvedWebSocketSettings
    readonly readPeer: PeerReader
    readonly isProduction: boolean
  }) {
    this.#hub = options.hub
    this.#settings = options.settings
    this.#readPeer = options.readPeer
    this.#isProduction = options.isProduction
    this.#sockets = new WsServer({
      noServer: true,
      clientTracking: false,
      // Costs a quarter of a megabyte a socket where it is used.
      perMessageDeflate: false,
      maxPayload: options.settings.maxMessageBytes,
      WebSocket: ClientSocket,
      handleProtocols: (_offered, request) => chosenSubprotocols.get(request) ?? false,
    })
  }

  /** How many sockets are open or being opened. */
  get socketCount(): number {
    return this.#connections.size
  }

  /** Whether a request's path is one this server takes handshakes for. */
  serves(request: IncomingMessage): boolean {
    const path = request.url?.split('?', 1)[0] ?? ''
    return this.#settings.paths.some((prefix) => path.startsWith(prefix))
  }

  /** Takes over a request to upgrade; for the `upgrade` event of a `node:http` server. */
  handleUpgrade(request: IncomingMessage, socket: Socket, head: Buffer): void {
    // Without a listener an early reset would end the process.
    socket.on('error', ignoreError)
    try {
      const status = this.#refusal(request)
      if (status !== undefined) {
        refuse(socket, status)
        return
      }
      const { client, isSecure } = this.#readPeer(request)
      const fault = originFault(
        {
          origins: valuesOf(request, 'origin'),
          host: request.headers.host,
          isSecure,
          clientHost: client[0],
          isProduction: this.#isProduction,
        },
        this.#settings,
      )
      if (fault !== undefined) {
        this.#hub.counters.add('handshake.refused-origin')
        this.#hub.logger.warn(
          {
            origin: request.headers.origin?.slice(0, 200),
            host: request.headers.host?.slice(0, 200),
          },
          `a handshake is refused: ${fault}`,
        )
        refuse(socket, 403)
        return
      }
      this.#open(request, socket, head, isSecure)
    } catch (error) {
      this.#hub.counters.add('handshake.bad')
      const isOurs = isChannelkitError(error)
      if (!isOurs) this.#hub.logger.error({ err: error }, 'a handshake failed')
      refuse(socket, isOurs ? errorTable[error.code].httpStatus : 500)
    }
  }

  /** Admits no more sockets and closes those that are open with 1012, some at a time. */
  async close(): Promise<void> {
    this.#isClosing = true
    this.#stopRounds?.()
    const { closeBatch, closeBatchMs } = this.#settings
    const { clock } = this.#hub.backend.limits
    const open = [...this.#connections]
    for (let start = 0; start < open.length; start += closeBatch) {
      if (start > 0) await new Promise<void>((resolve) => clock.schedule(resolve, closeBatchMs))
      for (const connection of open.slice(start, start + closeBatch)) {
        connection.close(1012, 'server restarts')
      }
    }
    if (this.#connections.size === 0) return
    await new Promise<void>((resolve) => {
      const cancel = clock.schedule(() => {
        for (const connection of [...this.#connections]) connection.terminate()
        resolve()
      }, closeGraceMs)
      this.#onEmpty = () => {
        cancel()
        resolve()
      }
    })
  }

  #refusal({ headers }: IncomingMessage): number | undefined {
    // RFC 6455 section 4.4: the client may try again with the version it is told.
    if ((headers['sec-websocket-version'] ?? '13') !== '13') {
      this.#hub.counters.add('handshake.bad')
      return 426
    }
    if (this.#isClosing) return 503
    if (this.#connections.size >= this.#settings.maxSockets) {
      this.#hub.counters.add('handshake.refused-full')
      return 503
    }
    return undefined
  }

  #open(request: IncomingMessage, socket: Socket, head: Buffer, isSecure: boolean): void {
    checkHandshake(request)
    const offered = valuesOf(request, 'sec-websocket-protocol')
    const subprotocols = offered.flatMap((value) => value.split(',')).map((name) => name.trim())
    if (subprotocols.length > 100) {
      throw new ChannelkitError('ERR_BAD_HANDSHAKE', 'the handshake offers over 100 subprotocols')
    }
    const transport = new WebSocketTransport({ server: this, request, socket, head })
    const connection = new WebSocketConnection({
      hub: this.#hub,
      transport,
      settings: this.#settings,
      handshake: {
        ...requestHead(request, this.#readPeer(request)),
        scheme: isSecure ? 'wss' : 'ws',
        subprotocols,
      },
      onEnd: (ended) => this.#forget(ended),
    })
    if (connection.isClosed) return
    this.#connections.add(connection)
    this.#stopRounds ??= this.#startRounds()
    this.#hub.counters.add('sockets.opened')
    transport.connect(connection)
  }

  /** Completes a handshake; undefined when the library found it malformed and has answered so. */
  upgrade({ request, socket, head }: Upgrade): ClientSocket | undefined {
    let opened: ClientSocket | undefined
    this.#sockets.handleUpgrade(request, socket, head, (client) => {
      opened = client
    })
    return opened
  }

  /** Hands what a client sends to its connection. */
  listen(client: ClientSocket, connection: WebSocketConnection): void {
    client.connection = connection
    client.on('message', onMessage)
    client.on('pong', onAlive)
    client.on('error', onError)
    client.on('close', onClose)
    client.bucket = this.#buckets[this.#nextBucket] as Set<ClientSocket>
    client.bucket.add(client)
    this.#nextBucket = (this.#nextBucket + 1) % bucketCount
  }

  #forget(connection: WebSocketConnection): void {
    this.#connections.delete(connection)
    if (this.#connections.size > 0) return
    this.#stopRounds?.()
    this.#stopRounds = undefined
    this.#onEmpty?.()
  }

  #startRounds(): () => void {
    const { clock, groupExpiryMs } = this.#hub.backend.limits
    const inRounds = (roundMs: number, task: (bucket: Set<ClientSocket>) => void): (() => void) => {
      let next = 0
      const step = (): void => {
        task(this.#buckets[next] as Set<ClientSocket>)
        next = (next + 1) % bucketCount
      }
      return repeat(clock, step, roundMs / bucketCount)
    }
    const stopPings = inRounds(this.#settings.pingMs, (bucket) => this.#ping(bucket))
    const stopKeepalives = inRounds(groupExpiryMs / 2, (bucket) => this.#keepAlive(bucket))
    return () => {
      stopPings()
      stopKeepalives()
    }
  }

  #ping(bucket: ReadonlySet<ClientSocket>): void {
    // Not the time of day: a clock that is set must not cut a thousand sockets.
    const now = this.#hub.backend.limits.clock.elapsed()
    for (const client of bucket) {
      if (client.readyState !== WebSocket.OPEN) continue
      if (client.connection?.isHeld) {
        // Its pong is not read; that it is gone shows when this cannot be written.
        client.ping()
        continue
      }
      if (client.pingedAt === 0) {
        client.pingedAt = now
        client.ping()
      } else if (now - client.pingedAt >= this.#settings.pongMs) {
        this.#hub.counters.add('closed.no-pong')
        client.terminate()
      }
    }
  }

  #keepAlive(bucket: ReadonlySet<ClientSocket>): void {
    if (!this.#hub.consumed.isConsumed('websocket.keepalive')) return
    for (const client of bucket) client.connection?.keepalive()
  }
}

/** A request to upgrade, with its connection. */
interface Upgrade {
  readonly request: IncomingMessage
  readonly socket: Socket
  /** What the client sent behind its request. */
  readonly head: Buffer
}

/** What a consumer chose of the subprotocols a handshake offered. */
const chosenSubprotocols = new WeakMap<IncomingMessage, string>()

/** A connection's wire: first the bare socket of a handshake, then the library's socket. */
class WebSocketTransport implements SocketTransport {
  readonly #socket: Socket
  readonly #server: WebSocketServer
  /** Let go when the handshake is done: a request is large beside an idle socket. */
  #upgrade: Upgrade | undefined
  #client: ClientSocket | undefined
  #connection: WebSocketConnection | undefined
  #ignoreEarlyClose: (() => void) | undefined

  constructor(upgrade: Upgrade & { readonly server: WebSocketServer }) {
    this.#socket = upgrade.socket
    this.#server = upgrade.server
    this.#upgrade = upgrade
  }

  get bufferedBytes(): number {
    return this.#socket.writableLength
  }

  /** Says whose wire it is; the handshake may be complete already. */
  connect(connection: WebSocketConnection): void {
    this.#connection = connection
    if (this.#client) this.#server.listen(this.#client, connection)
    else this.#listenForEarlyClose(connection)
  }

  #listenForEarlyClose(connection: WebSocketConnection): void {
    const onClose = (): void => connection.handleClose(1006)
    this.#socket.once('close', onClose)
    this.#ignoreEarlyClose = () => this.#socket.off('close', onClose)
  }

  accept(subprotocol: string | undefined): boolean {
    const upgrade = this.#upgrade
    if (!upgrade) return false
    this.#upgrade = undefined
    this.#ignoreEarlyClose?.()
    if (subprotocol !== undefined) chosenSubprotocols.set(upgrade.request, subprotocol)
    this.#client = this.#server.upgrade(upgrade)
    if (!this.#client) return false
    if (this.#connection) this.#server.listen(this.#client, this.#connection)
    return true
  }

  refuse(status: number): void {
    refuse(this.#socket, status)
  }

  write(frames: readonly Buffer[]): void {
    if (this.#client?.readyState !== WebSocket.OPEN) return
    if (frames.length > 1) this.#socket.cork()
    for (const frame of frames) this.#socket.write(frame)
    if (frames.length > 1) this.#socket.uncork()
  }

  close(code: number, reason: string): void {
    this.#client?.close(code, reason)
  }

  terminate(): void {
    if (this.#client) this.#client.terminate()
    else this.#socket.destroy()
  }

  pause(): void {
    this.#client?.pause()
  }

  resume(): void {
    this.#client?.resume()
  }
}

function onMessage(this: WebSocket, data: Buffer, isBinary: boolean): void {
  const client = this as ClientSocket
  client.pingedAt = 0
  client.connection?.handleMessage(isBinary ? plainBytes(data) : data.toString())
}

/** The same bytes without Node's own methods, as consumers get them from every backend. */
function plainBytes(bytes: Buffer): Uint8Array {
  const isAlone = bytes.byteLength === bytes.buffer.byteLength
  return isAlone ? new Uint8Array(bytes.buffer) : new Uint8Array(bytes)
}

/** The library answers a bad frame with the right close code itself; it does not tell which. */
function onError(this: WebSocket, error: Error & { code?: string }): void {
  const client = this as ClientSocket
  const faultCode = faultCodes[error.code ?? '']
  if (faultCode === undefined) return
  client.faultCode = faultCode
  client.connection?.countFault(error.code ?? '')
}

/** The library's errors of bad frames → RFC 6455 section 7.4.1. */
const faultCodes: Readonly<Record<string, number>> = {
  WS_ERR_EXPECTED_FIN: 1002,
  WS_ERR_EXPECTED_MASK: 1002,
  WS_ERR_INVALID_CLOSE_CODE: 1002,
  WS_ERR_INVALID_CONTROL_PAYLOAD_LENGTH: 1002,
  WS_ERR_INVALID_OPCODE: 1002,
  WS_ERR_INVALID_UTF8: 1007,
  WS_ERR_TOO_MANY_BUFFERED_PARTS: 1008,
  WS_ERR_UNEXPECTED_MASK: 1002,
  WS_ERR_UNEXPECTED_RSV_1: 1002,
  WS_ERR_UNEXPECTED_RSV_2_3: 1002,
  WS_ERR_UNSUPPORTED_DATA_PAYLOAD_LENGTH: 1009,
  WS_ERR_UNSUPPORTED_MESSAGE_LENGTH: 1009,
}

function onAlive(this: WebSocket): void {
  ;(this as ClientSocket).pingedAt = 0
}

function onClose(this: WebSocket, code: number): void {
  const client = this as ClientSocket
  client.bucket?.delete(client)
  client.connection?.handleClose(client.faultCode || code)
}

/** @throws {ChannelkitError} `ERR_BAD_HANDSHAKE`, RFC 6455 section 4.2.1. */
function checkHandshake({ method, headers }: IncomingMessage): void {
  const fault =
    method !== 'GET'
      ? `its method is ${method}`
      : headers.upgrade?.toLowerCase() !== 'websocket'
        ? 'it does not ask for websocket'
        : !/^[+/0-9A-Za-z]{22}==$/.test(headers['sec-websocket-key'] ?? '')
          ? 'its Sec-WebSocket-Key is not 16 bytes in base64'
          : headers['sec-websocket-version'] !== '13'
            ? 'its Sec-WebSocket-Version is not 13'
            : undefined
  if (fault) throw new ChannelkitError('ERR_BAD_HANDSHAKE', `a handshake is malformed; ${fault}`)
}

function ignoreError(): void {}

function valuesOf({ rawHeaders }: IncomingMessage, name: string): string[] {
  const values: string[] = []
  for (let index = 0; index < rawHeaders.length; index += 2) {
    if (rawHeaders[index]?.toLowerCase() === name) values.push(rawHeaders[index + 1] as string)
  }
  return values
}

const refusalHeaders: Readonly<Record<number, string>> = {
  426: 'Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n',
  503: 'Retry-After: 1\r\n',
}

/** Answers a handshake that is not to be completed, in plain HTTP, and ends the connection. */
export function refuse(socket: Socket, status: number): void {
  if (socket.destroyed) return
  const text = STATUS_CODES[status] ?? 'Error'
  socket.end(
    `HTTP/1.1 ${status} ${text}\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: ${text.length}\r\n${refusalHeaders[status] ?? ''}\r\n${text}`,
    () => socket.destroy(),
  )
}
