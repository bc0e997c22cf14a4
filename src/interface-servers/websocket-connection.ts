import type { Content } from '../content.ts'
import { type ChannelkitError, shown } from '../errors.ts'
import type { WebSocketConnect } from '../message-formats.ts'
import { goneChannel } from '../names.ts'
import type { EventSource } from './event-outbox.ts'
import { encodeReplies, encodeReplyFrame, hasFrame } from './frame.ts'
import type { Hub } from './hub.ts'
import type { Reply, ReplyOwner } from './reply.ts'
import type { ResolvedWebSocketSettings } from './settings.ts'

/** The wire under a connection: a real socket, or a test's. */
export interface SocketTransport {
  /** Bytes written that the client has not taken yet. */
  readonly bufferedBytes: number
  /** Completes the handshake; false when the client was refused instead, since it was malformed. */
  accept(subprotocol: string | undefined): boolean
  /** Refuses the handshake with an HTTP status. */
  refuse(status: number): void
  /** Writes frames, in order, at once. */
  write(frames: readonly Buffer[]): void
  /** Begins the closing handshake; `handleClose` follows when it is done or has failed. */
  close(code: number, reason: string): void
  /** Cuts the connection; `handleClose` follows. */
  terminate(): void
  pause(): void
  resume(): void
}

/** What a handshake says, without the reply channel, which the connection adds. */
export type Handshake = Omit<WebSocketConnect, 'reply_channel'>

// A reader with more than its limit waiting gets this long to take it, up to this many times it.
const burstMs = 1_000
const burstFactor = 8
// A slow reader gets this long to take what is buffered and learn why it is closed.
const slowReaderGraceMs = 2_000

/**
 * One client's socket, between its transport and the channels: turns what happens to it into events,
 * and replies into frames.
 *
 * States: `connecting` (only where a consumer decides) → `open` → `closing` → `closed`. Events go
 * out in the order connect, receive…, disconnect; a refused handshake has no disconnect.
 */
export class WebSocketConnection implements ReplyOwner, EventSource {
  readonly replyChannel: string
  readonly path: string
  readonly #hub: Hub
  readonly #transport: SocketTransport
  readonly #settings: ResolvedWebSocketSettings
  readonly #onEnd: (connection: WebSocketConnection) => void
  #state: 'connecting' | 'open' | 'closing' | 'closed' = 'connecting'
  /** Replies with something to send, until the next flush. */
  #pending: Reply[] = []
  #isDirty = false
  #isWatched = false
  #closeAfterFlush: Close | undefined
  #cancelHandshake: (() => void) | undefined
  /** The subprotocols a consumer may choose from; none once the handshake is complete. */
  #offered: readonly string[] = []
  /** While its events wait for the backend, no pong can be read either. */
  isHeld = false

  constructor(options: {
    readonly hub: Hub
    readonly transport: SocketTransport
    readonly settings: ResolvedWebSocketSettings
    readonly handshake: Handshake
    readonly onEnd: (connection: WebSocketConnection) => void
  }) {
    this.#hub = options.hub
    this.#transport = options.transport
    this.#settings = options.settings
    this.#onEnd = options.onEnd
    this.path = options.handshake.path
    this.replyChannel = this.#hub.inbox.newChannel(this)
    if (this.#settings.acceptance === 'immediately') {
      if (!this.#transport.accept(options.handshake.subprotocols[0])) {
        this.#end()
        return
      }
      this.#state = 'open'
    } else {
      this.#offered = options.handshake.subprotocols
      this.#cancelHandshake = this.#hub.backend.limits.clock.schedule(() => {
        this.#hub.counters.add('handshake.timed-out')
        this.#refuse(504)
      }, this.#settings.handshakeMs)
    }
    this.#emit('websocket.connect', {
      ...options.handshake,
      reply_channel: this.replyChannel,
    })
  }

  get isClosed(): boolean {
    return this.#state === 'closed'
  }

  /** Counts a bad frame by what was wrong with it. */
  countFault(fault: string): void {
    this.#hub.counters.add(`frames.${fault}`)
  }

  /** One message from the client. */
  handleMessage(content: string | Uint8Array): void {
    if (this.#state !== 'open') {
      this.#hub.counters.add('dropped.closing')
      return
    }
    this.#emit(
      'websocket.receive',
      typeof content === 'string'
        ? { reply_channel: this.replyChannel, path: this.path, content }
        : { reply_channel: this.replyChannel, path: this.path, content, binary: true },
    )
  }

  /** The transport is gone. */
  handleClose(code: number): void {
    if (this.#state === 'closed') return
    this.#end()
    const { replyChannel, path } = this
    this.#emit('websocket.disconnect', { reply_channel: replyChannel, path, code })
    const { consumed, outbox } = this.#hub
    if (consumed.isAwaited(goneChannel) && !consumed.isAwaited('websocket.disconnect')) {
      outbox.add(this, goneChannel, { reply_channel: replyChannel })
    }
  }

  /** Tells the consumers that this socket is still open. */
  keepalive(): void {
    if (this.#state !== 'open' || this.isHeld) return
    this.#emit('websocket.keepalive', { reply_channel: this.replyChannel, path: this.path })
  }

  receive(reply: Reply): void {
    try {
      this.#receive(reply)
    } catch (error) {
      this.#hub.counters.add('dropped.bad-reply')
      this.#hub.logger.error({ err: error, path: this.path }, 'a reply to a socket is dropped')
    }
  }

  flush(): void {
    this.#isDirty = false
    const pending = this.#pending
    this.#pending = []
    if (this.#state !== 'open') {
      this.#countGone(pending)
      return
    }
    if (pending.length > 0) {
      this.#transport.write(encodeReplies(pending))
      if (this.#transport.bufferedBytes > this.#settings.maxBufferedBytes) this.#watchSlowReader()
    }
    if (this.#closeAfterFlush) {
      this.close(this.#closeAfterFlush.code, this.#closeAfterFlush.reason)
    }
  }

  /** Closes from this side; the disconnect event follows when the client has answered. */
  close(code: number, reason: string): void {
    if (this.#state === 'connecting') {
      this.#refuse(503)
    } else if (this.#state === 'open') {
      this.#state = 'closing'
      this.#transport.close(code, reason)
    }
  }

  terminate(): void {
    this.#transport.terminate()
  }

  holdReading(): void {
    this.isHeld = true
    this.#hub.counters.add('held.clients')
    if (this.#state === 'open') this.#transport.pause()
  }

  resumeReading(): void {
    this.isHeld = false
    if (this.#state === 'open' || this.#state === 'closing') this.#transport.resume()
  }

  refuseEvent(error: ChannelkitError): void {
    this.#hub.logger.warn({ err: error, path: this.path }, 'a message from a client is dropped')
    // Only its size can be at fault: everything else about an event is made here.
    this.close(1009, 'message too big')
  }

  #receive(reply: Reply): void {
    const { content } = reply
    if (this.#state === 'connecting' && !this.#decideHandshake(content)) return
    // A reply behind one that closes comes too late.
    if (this.#state !== 'open' || this.#closeAfterFlush) {
      this.#hub.counters.add('dropped.gone')
      return
    }
    const close = closeOf(content)
    if (reply.isShared) {
      if (reply.frame === undefined) reply.frame = encodeReplyFrame(content)
      if (reply.frame) this.#pending.push(reply)
    } else if (hasFrame(content)) {
      this.#pending.push(reply)
    }
    this.#closeAfterFlush = close
    if (!this.#isDirty && (this.#pending.length > 0 || this.#closeAfterFlush)) {
      this.#isDirty = true
      this.#hub.flushLater(this)
    }
  }

  /** @returns whether the handshake is complete now. */
  #decideHandshake({ accept, close, content, subprotocol }: Content): boolean {
    const refuses = accept === false || (accept !== true && content === undefined && Boolean(close))
    if (refuses) {
      this.#hub.counters.add('handshake.refused-by-consumer')
      this.#refuse(403)
      return false
    }
    if (accept !== true && content === undefined) return false
    if (subprotocol !== undefined && !this.#offered.includes(String(subprotocol))) {
      this.#refuse(500)
      throw new TypeError(
        `subprotocol is ${shown(subprotocol)}, which the client does not offer; choose from ${this.#offered.join(', ') || 'none'}`,
      )
    }
    this.#cancelHandshake?.()
    const chosen = subprotocol === undefined ? undefined : String(subprotocol)
    this.#offered = []
    if (!this.#transport.accept(chosen)) {
      this.handleClose(1002)
      return false
    }
    this.#state = 'open'
    if (this.isHeld) this.#transport.pause()
    return true
  }

  #refuse(status: number): void {
    this.#end()
    this.#transport.refuse(status)
  }

  #end(): void {
    this.#state = 'closed'
    this.#cancelHandshake?.()
    this.#countGone(this.#pending)
    this.#pending = []
    this.#hub.inbox.endChannel(this.replyChannel)
    this.#onEnd(this)
  }

  #countGone(replies: readonly Reply[]): void {
    if (replies.length > 0) this.#hub.counters.add('dropped.gone', replies.length)
  }

  /** A burst is no slow reader: it has a moment to take it, unless there is far too much. */
  #watchSlowReader(): void {
    const { maxBufferedBytes } = this.#settings
    if (this.#transport.bufferedBytes > maxBufferedBytes * burstFactor) {
      this.#endSlowReader()
    } else if (!this.#isWatched) {
      this.#isWatched = true
      this.#hub.backend.limits.clock.schedule(() => {
        this.#isWatched = false
        if (this.#state === 'open' && this.#transport.bufferedBytes > maxBufferedBytes) {
          this.#endSlowReader()
        }
      }, burstMs)
    }
  }

  #endSlowReader(): void {
    this.#hub.counters.add('closed.slow-reader')
    this.close(1013, 'reading too slowly')
    this.#hub.backend.limits.clock.schedule(() => {
      if (this.#state !== 'closed') this.#transport.terminate()
    }, slowReaderGraceMs)
  }

  #emit(channel: string, content: Content): void {
    if (this.#hub.consumed.isWorthSending(channel)) this.#hub.outbox.add(this, channel, content)
    else this.#hub.counters.add('dropped.not-consumed')
  }
}

/** How a socket is closed from this side. */
interface Close {
  readonly code: number
  readonly reason: string
}

/** @throws {TypeError} for a code that may not be sent. */
function closeOf({ close, reason }: Content): Close | undefined {
  if (close === undefined || close === null || close === false) return undefined
  return { code: closeCode(close), reason: closeReason(reason) }
}

function closeCode(close: unknown): number {
  if (close === true) return 1000
  // What an endpoint may send, RFC 6455 section 7.4 and the IANA registry.
  if (
    typeof close === 'number' &&
    Number.isInteger(close) &&
    ((close >= 1000 && close <= 1014) || (close >= 3000 && close <= 4999)) &&
    ![1004, 1005, 1006].includes(close)
  ) {
    return close
  }
  throw new TypeError(`close is ${String(close)}; give true, 1000-1014 or 3000-4999`)
}

function closeReason(reason: unknown): string {
  if (reason === undefined) return ''
  const bytes = Buffer.from(String(reason))
  // A control frame holds 125 bytes, two of which are the code; cut before a broken character.
  return bytes.length <= 123
    ? String(reason)
    : bytes.toString('utf8', 0, 123).replace(/\uFFFD+$/, '')
}
