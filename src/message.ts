import type { ChannelBackend, IncomingMessage } from './backends/channel-backend.ts'
import { type Channel, replyChannelOf } from './channel.ts'
import type { ContentOf, ReplyOf } from './channel-types.ts'
import type { Content } from './content.ts'
import { ChannelkitError } from './errors.ts'

/**
 * What a consumer is handed. `Name` is the channel's name, by which the compiler knows the type of
 * the content: `Message<'websocket.receive'>`; without it, any.
 */
export type Message<Name extends string = string> = MessageOf<ContentOf<Name>, ReplyOf<Name>>

/** A message by the types of its content and of what may be answered to it. */
export interface MessageOf<C, Reply extends Content> {
  /** The JSON object that was sent; a fresh one, so it may be changed. */
  readonly content: C
  /** The name of the channel it came on. */
  readonly channel: string
  /**
   * The channel of the client that caused the message.
   *
   * @throws {ChannelkitError} `ERR_NO_REPLY_CHANNEL` on reading it when the message has none;
   *   see `hasReplyChannel`.
   */
  readonly replyChannel: Channel<Reply>
  readonly hasReplyChannel: boolean
  /**
   * How often a consumer has already run on it and thrown `Requeue`; on a channel with `acknowledge:
   * 'afterRun'`, how often it was begun before.
   */
  readonly attempts: number
  /** The backend that carried it. */
  readonly backend: ChannelBackend
  /**
   * Aborted, with `ERR_LOCK_LOST`, when a linearized consumer has lost its turn: it has run for
   * longer than the worker's `maxTurnMs`, or was stopped or cut off from the backend for longer
   * than the lease, so that others may run the client's next message. Read it anew before what must
   * not come late: `message.signal.throwIfAborted()`. Never aborted otherwise.
   */
  readonly signal: AbortSignal
}

/** Of a message in a worker: the turn it runs under, `undefined` when it runs without. */
export const turnOf = Symbol('turn')

/** The turn of a line as its consumer sees it. */
export interface RunningTurn {
  readonly signal: AbortSignal
  /**
   * @param what - what is not done when the turn is lost.
   * @throws {ChannelkitError} `ERR_LOCK_LOST` when it is.
   */
  check(what: string): void
}

/**
 * Keeps what a consumer does from coming after its client's next message has begun.
 *
 * @param what - what is not done then.
 * @throws {ChannelkitError} `ERR_LOCK_LOST` when its turn is lost, by the machine's clock.
 */
export function checkTurn(message: object, what: string): void {
  if (turnOf in message) (message as ReceivedMessage)[turnOf]?.check(what)
}

const goingOn = Symbol('going on')

/**
 * Lets a consumer return while some of its work goes on, such as a stream to a client: that takes no
 * place among what a worker runs at once, but the worker's end waits for it.
 */
export function goOnBeyond(message: object, work: Promise<void>): void {
  ;(message as { [goingOn]?: Promise<void> })[goingOn] = work
}

/** What goes on of a message whose consumer has returned. */
export function workBeyond(message: object): Promise<void> | undefined {
  return (message as { [goingOn]?: Promise<void> })[goingOn]
}

const neverAborted = new AbortController().signal

/** The message a worker makes of what a backend handed over. */
export class ReceivedMessage implements Message {
  readonly content: Content
  readonly channel: string
  readonly attempts: number
  readonly backend: ChannelBackend
  /** Left out where no worker runs it. */
  readonly [turnOf]?: RunningTurn | undefined
  #replyChannel: Channel | undefined

  constructor(incoming: IncomingMessage, backend: ChannelBackend) {
    this.content = incoming.content
    this.channel = incoming.channel
    this.attempts = incoming.attempts
    this.backend = backend
  }

  get signal(): AbortSignal {
    return this[turnOf]?.signal ?? neverAborted
  }

  get hasReplyChannel(): boolean {
    return typeof this.content.reply_channel === 'string'
  }

  get replyChannel(): Channel {
    if (this.#replyChannel) return this.#replyChannel
    const name = this.content.reply_channel
    if (typeof name !== 'string') {
      throw new ChannelkitError(
        'ERR_NO_REPLY_CHANNEL',
        `a message on ${this.channel} has no reply channel; send it with reply_channel in its content, or ask hasReplyChannel first`,
      )
    }
    this.#replyChannel = replyChannelOf(name, this.backend, this[turnOf])
    return this.#replyChannel
  }
}

/** The message a worker runs, with its turn where it has one. */
export class WorkerMessage extends ReceivedMessage {
  override readonly [turnOf]: RunningTurn | undefined

  constructor(incoming: IncomingMessage, backend: ChannelBackend, turn: RunningTurn | undefined) {
    super(incoming, backend)
    this[turnOf] = turn
  }
}
