import type { ReceiveOptions } from '../../../src/backends/channel-backend.ts'
import { MemoryBackend } from '../../../src/backends/memory/memory-backend.ts'
import { MemoryStore } from '../../../src/backends/memory/memory-store.ts'
import { ChannelkitError, isChannelkitError } from '../../../src/errors.ts'
import { Backend, type CreateStore, type Fault, storesOf } from './backend.ts'

class FlushForgetsGroups extends Backend {
  override async flush() {
    const groups = new Map(this.store.groups)
    await super.flush()
    for (const [group, members] of groups) this.store.groups.set(group, members)
  }
}

class CloseLeavesWaits extends Backend {
  override async receive(channels: readonly string[], options: ReceiveOptions) {
    try {
      return await super.receive(channels, options)
    } catch (error) {
      if (options.waitMs === 0 || !isChannelkitError(error, 'ERR_BACKEND_CLOSED')) throw error
      return new Promise<never>(() => {})
    }
  }
}

class AnswersAfterClose extends Backend {
  override async processes() {
    return await super.processes().catch(() => [])
  }
}

class KeepsTimerAfterClose extends Backend {
  override async close() {
    this.limits.clock.schedule(() => {}, 60_000)
    await super.close()
  }
}

class OpensOnce extends Backend {
  #isOpen = false

  override async open() {
    if (this.#isOpen) throw new RangeError('the backend is open already')
    this.#isOpen = true
    await super.open()
  }
}

class CloseFlushes extends Backend {
  override async close() {
    await super.flush().catch(() => {})
    await super.close()
  }
}

/** A service that still stores what it is sent while it is away. */
const storesInVain: CreateStore = async () => {
  const { open, dispose } = await storesOf(Backend)()
  let isAway = false
  const away = new ChannelkitError('ERR_BACKEND_UNAVAILABLE', 'the service is away')
  return {
    open: async (options) =>
      new Proxy(await open(options), {
        get: (target, key) => {
          const value: unknown = Reflect.get(target, key, target)
          if (typeof value !== 'function') return value
          if (!isAway || key === 'close') return value.bind(target)
          return async (...args: unknown[]) => {
            if (key === 'send') await Reflect.apply(value, target, args)
            throw away
          }
        },
      }),
    async breakConnection() {
      isAway = true
      return async () => {
        isAway = false
      }
    },
    dispose,
  }
}

const breaksNothing: CreateStore = async () => ({
  ...(await storesOf(Backend)()),
  breakConnection: async () => async () => {},
})

/** Stores are told apart by nothing: those of one clause, which share a clock, are one. */
const storesAreOne: CreateStore = () => {
  return Promise.resolve({
    open: async (options) => {
      const clock = options?.clock ?? {}
      const store = storeOfClock.get(clock) ?? new MemoryStore()
      storeOfClock.set(clock, store)
      return new MemoryBackend({ ...options, store })
    },
    dispose: async () => {},
  })
}
const storeOfClock = new WeakMap<object, MemoryStore>()

export const lifecycleFaults: readonly Fault[] = [
  ['keeps groups in a flush', 'R7 X1', storesOf(FlushForgetsGroups)],
  ['leaves waits pending when it closes', 'X2 X5', storesOf(CloseLeavesWaits)],
  ['answers after it has closed', 'X3', storesOf(AnswersAfterClose)],
  ['goes on as if its service were there', 'C22 X4', breaksNothing],
  ['stores what it says it could not store', 'C22', storesInVain],
  ['keeps a timer after it has closed', 'X5', storesOf(KeepsTimerAfterClose)],
  ['opens only once', 'X6', storesOf(OpensOnce)],
  ['takes all stores for one', 'D9 X1 X7', storesAreOne],
  ['empties the store when it closes', 'D5 A1 X2 X3 X8', storesOf(CloseFlushes)],
]
