import { ChannelkitError } from 'channelkit'
import type {
  IncomingMessage,
  OutgoingMessage,
  ReceiveOptions,
  SendFailure,
} from 'channelkit/backend'
import { MemoryBackend } from 'channelkit/memory'

/** A memory backend whose service a test takes away and brings back. */
export class BreakableBackend extends MemoryBackend {
  #isAway = false
  #breaking = new AbortController()

  /** From here on calls reject with `ERR_BACKEND_UNAVAILABLE`, those that wait included. */
  breaks(): void {
    this.#isAway = true
    this.#breaking.abort(unavailable())
  }

  mends(): void {
    this.#isAway = false
    this.#breaking = new AbortController()
  }

  override async send(messages: readonly OutgoingMessage[]): Promise<readonly SendFailure[]> {
    if (this.#isAway) throw unavailable()
    return super.send(messages)
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
