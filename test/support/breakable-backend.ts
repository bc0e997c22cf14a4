import { ChannelkitError } from 'channelkit'
import type {
  IncomingMessage,
  OutgoingMessage,
  ReceiveOptions,
  SendFailure,
  SendOptions,
} from 'channelkit/backend'
import { MemoryBackend } from 'channelkit/memory'

/** A memory backend whose service a test takes away and brings back. */
export class BreakableBackend extends MemoryBackend {
  #isAway = false
  #breaking = new AbortController()
  #isReplyLost = false
  /** Outcomes of the marked batches that were stored. */
  readonly #stored = new Map<string, readonly SendFailure[]>()

  /** What is sent next is stored, and rejects with `ERR_BACKEND_UNAVAILABLE` all the same. */
  losesNextReply(): void {
    this.#isReplyLost = true
  }

  /** From here on calls reject with `ERR_BACKEND_UNAVAILABLE`, those that wait included. */
  breaks(): void {
    this.#isAway = true
    this.#breaking.abort(unavailable())
  }

  mends(): void {
    this.#isAway = false
    this.#breaking = new AbortController()
  }

  override async send(
    messages: readonly OutgoingMessage[],
    { mark }: SendOptions = {},
  ): Promise<readonly SendFailure[]> {
    if (this.#isAway) throw unavailable()
    const key = JSON.stringify(mark)
    const failures = this.#stored.get(key) ?? (await super.send(messages))
    if (mark) this.#stored.set(key, failures)
    if (!this.#isReplyLost) return failures
    this.#isReplyLost = false
    throw unavailable()
  }

  override async receive(
    channels: readonly string[],
    options: ReceiveOptions,
  ): Promise<readonly IncomingMessage[]> {
    if (this.#isAway) throw unavailable()
    const signals = options.signal ? [options.signal] : []
    const signal = AbortSignal.any([...signals, this.#breaking.signal])
    return super.receive(channels, { ...options, signal })
  }
}

function unavailable(): ChannelkitError {
  return new ChannelkitError('ERR_BACKEND_UNAVAILABLE', 'the service is away')
}
