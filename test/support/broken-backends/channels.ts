import type {
  BackendOptions,
  ChannelBackend,
  IncomingMessage,
  OutgoingMessage,
  ReceiveOptions,
} from '../../../src/backends/channel-backend.ts'
import { MemoryBackend } from '../../../src/backends/memory/memory-backend.ts'
import { MemoryStore } from '../../../src/backends/memory/memory-store.ts'
import { isChannelkitError } from '../../../src/errors.ts'
import { Backend, type CreateStore, type Fault, storesOf, turn } from './backend.ts'

class LaterHalfFirst extends Backend {
  override async send(messages: readonly OutgoingMessage[]) {
    if (messages.length <= 20) return super.send(messages)
    const half = messages.length >> 1
    const later = await super.send(messages.slice(half))
    const earlier = await super.send(messages.slice(0, half))
    return [...earlier, ...later.map(({ index, error }) => ({ index: index + half, error }))]
  }
}

class SelectsThenDeletes extends Backend {
  override async receive(channels: readonly string[], options: ReceiveOptions) {
    const taken = await super.receive(channels, options)
    await super.handBack(taken)
    await turn()
    for (const { channel, id } of taken) {
      this.store.channels.get(channel)?.filter((other) => other.id !== id)
    }
    return taken
  }
}

class FirstChannelFirst extends Backend {
  override async receive(channels: readonly string[], options: ReceiveOptions) {
    const atOnce = options.waitMs > 0 ? { ...options, waitMs: 0 } : options
    for (const channel of channels) {
      const taken = await super.receive([channel], atOnce)
      if (taken.length > 0) return taken
    }
    return options.waitMs === 0 && channels.length > 0 ? [] : super.receive(channels, options)
  }
}

class WaitsHalf extends Backend {
  override receive(channels: readonly string[], options: ReceiveOptions) {
    return super.receive(channels, { ...options, waitMs: options.waitMs / 2 })
  }
}

class ThrowsPoppedAwayOnAbort extends Backend {
  override async receive(channels: readonly string[], options: ReceiveOptions) {
    const { signal, ...rest } = options
    if (!signal) return super.receive(channels, options)
    signal.throwIfAborted()
    const receiving = super.receive(channels, rest)
    receiving.catch(() => {})
    const aborted = new Promise<never>((_resolve, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason), { once: true })
    })
    return Promise.race([receiving, aborted])
  }
}

class HandsBackToTheTail extends Backend {
  override handBack(messages: readonly IncomingMessage[]) {
    return super.handBack(messages.map((message) => ({ ...message, id: this.store.nextId++ })))
  }
}

class HandsBackWithNewExpiry extends Backend {
  override handBack(messages: readonly IncomingMessage[]) {
    const expiresAt = this.limits.clock.now() + this.limits.expiryMs
    return super.handBack(messages.map((message) => ({ ...message, expiresAt })))
  }
}

class OverfillsBatch extends Backend {
  override async receive(channels: readonly string[], options: ReceiveOptions) {
    const first = await super.receive(channels, options)
    if (first.length < options.max) return first
    return [...first, ...(await super.receive(channels, { ...options, waitMs: 0 }))]
  }
}

class ForgetsAttempts extends Backend {
  override send(messages: readonly OutgoingMessage[]) {
    return super.send(messages.map((message) => ({ ...message, attempts: 0 })))
  }
}

class UncheckedReceive extends Backend {
  override async receive(channels: readonly string[], options: ReceiveOptions) {
    try {
      return await super.receive(channels, options)
    } catch (error) {
      if (isChannelkitError(error, 'ERR_INVALID_ARGUMENT')) return []
      throw error
    }
  }
}

class PutsBackInSilence extends Backend {
  override async receive(channels: readonly string[], options: ReceiveOptions) {
    if (options.waitMs === 0) return super.receive(channels, options)
    const taken = await super.receive(channels, { ...options, max: options.max + 1 })
    for (const surplus of taken.slice(options.max)) {
      this.store.channels
        .get(surplus.channel)
        ?.insert({ ...surplus, bytes: 1 }, ({ id }) => id < surplus.id)
    }
    return taken.slice(0, options.max)
  }
}

/** Each process waits on its own bell: nobody rings that of another. */
const wakesOnlyOwnProcess: CreateStore = async () => {
  const shared = new MemoryStore()
  const open = async (options?: BackendOptions): Promise<ChannelBackend> => {
    const store = Object.assign(new MemoryStore(), shared, { waiters: new Map() })
    Object.defineProperty(store, 'nextId', {
      get: () => shared.nextId,
      set: (nextId: number) => {
        shared.nextId = nextId
      },
    })
    return new MemoryBackend({ ...options, store })
  }
  return { open, dispose: async () => {} }
}

export const channelFaults: readonly Fault[] = [
  ['stores the later half of a long batch first', 'C2', storesOf(LaterHalfFirst)],
  [
    'selects messages, then deletes them',
    'C3 C20 D5 A1 A2 A3 A4 A5 A6 A7 L3 L4 L5 L6 L7 L8 L9 L10 L12 X2',
    storesOf(SelectsThenDeletes),
  ],
  ['empties the first channel first', 'C5 C14 A1 L2', storesOf(FirstChannelFirst)],
  ['waits half as long as asked', 'C6', storesOf(WaitsHalf)],
  ['wakes receivers of the own process only', 'C3 C7 C13 C20 D1 R12 L4 L6 X1', wakesOnlyOwnProcess],
  [
    'throws away what was popped when a wait is aborted',
    'C8 C20',
    storesOf(ThrowsPoppedAwayOnAbort),
  ],
  ['hands back to the tail', 'C13 A5', storesOf(HandsBackToTheTail)],
  ['hands back with a new expiry', 'C13', storesOf(HandsBackWithNewExpiry)],
  ['takes more than max', 'C2 C5 C10 C13 C14 D6', storesOf(OverfillsBatch)],
  ['forgets the attempts', 'C13 C15', storesOf(ForgetsAttempts)],
  ['receives nothing when asked for nonsense', 'C19', storesOf(UncheckedReceive)],
  ['puts back what it took too many and tells nobody', 'C20', storesOf(PutsBackInSilence)],
]
