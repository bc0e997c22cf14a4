import type {
  OutgoingMessage,
  ReceiveOptions,
  SendFailure,
} from '../../../src/backends/channel-backend.ts'
import type { MemoryBackendOptions } from '../../../src/backends/memory/memory-backend.ts'
import { Backend, type Fault, storesOf } from './backend.ts'

class QueueExpiresAsOne extends Backend {
  override async send(messages: readonly OutgoingMessage[]) {
    const failures = await super.send(messages)
    for (const queue of this.store.channels.values()) {
      const expiresAt = Math.max(...[...queue].map((message) => message.expiresAt))
      for (const message of queue) Object.assign(message, { expiresAt })
    }
    return failures
  }
}

class DeliversExpired extends Backend {
  override async receive(channels: readonly string[], options: ReceiveOptions) {
    for (const channel of channels) {
      const queue = this.store.channels.get(channel)
      const oldest = queue?.peek()
      if (queue && oldest && oldest.expiresAt <= this.limits.clock.now()) {
        queue.shift()
        return [oldest]
      }
    }
    return super.receive(channels, options)
  }
}

class NoCapacity extends Backend {
  override async send(messages: readonly OutgoingMessage[]) {
    const failures = await super.send(messages)
    const full = failures.filter(({ error }) => error.code === 'ERR_CHANNEL_FULL')
    const expiresAt = this.limits.clock.now() + this.limits.expiryMs
    for (const { index } of full) {
      const { channel, content } = messages[index] as OutgoingMessage
      if (channel.includes('!')) continue
      const id = this.store.nextId++
      await super.handBack([{ id, channel, content, expiresAt, attempts: 0 }])
    }
    return failures.filter(
      ({ index, error }) =>
        error.code !== 'ERR_CHANNEL_FULL' || messages[index]?.channel.includes('!'),
    )
  }
}

class FullStopsTheBatch extends Backend {
  override async send(messages: readonly OutgoingMessage[]) {
    const failures: SendFailure[] = []
    for (const [index, message] of messages.entries()) {
      const [failure] = await super.send([message])
      if (!failure) continue
      failures.push({ index, error: failure.error })
      if (failure.error.code === 'ERR_CHANNEL_FULL') break
    }
    return failures
  }
}

class OneCapacityForAll extends Backend {
  constructor(options: MemoryBackendOptions) {
    const { channelCapacity: _ignored, ...rest } = options
    super(rest)
  }
}

class NeverCleans extends Backend {
  override async cleanUp() {
    await super.groups()
    return 0
  }
}

export const limitFaults: readonly Fault[] = [
  [
    'lets every send renew the expiry of the queue',
    'C9 C13 C15 C18 L9 S3',
    storesOf(QueueExpiresAsOne),
  ],
  ['delivers expired messages', 'C9 D6 L9', storesOf(DeliversExpired)],
  ['ignores the capacity', 'C10 C11 C13 D7 L10 S1 S2', storesOf(NoCapacity)],
  [
    'sends a batch one by one, up to a full channel',
    'C4 C10 C11 D7 R10 S1 S2',
    storesOf(FullStopsTheBatch),
  ],
  ['ignores the capacities of single channels', 'C11 G6', storesOf(OneCapacityForAll)],
  ['never cleans up', 'C18 L11 S3', storesOf(NeverCleans)],
]
