import type { Inbox } from '../../../src/backends/channel-backend.ts'
import {
  MemoryBackend,
  type MemoryBackendOptions,
} from '../../../src/backends/memory/memory-backend.ts'
import { MemoryStore } from '../../../src/backends/memory/memory-store.ts'
import type { Content } from '../../../src/content.ts'
import type { TestStore } from '../../../src/testing/clause.ts'

export type GroupMessage = { readonly group: string; readonly content: Content }

/** Makes the stores of one backend, a fresh one at each call. */
export type CreateStore = () => Promise<TestStore>

/** A small fault, the clauses it breaks, and a backend that has it. */
export type Fault = readonly [fault: string, broken: string, createStore: CreateStore]

/** A memory backend whose faulty subclasses reach the data beneath. */
export class Backend extends MemoryBackend {
  protected readonly store: MemoryStore

  constructor(options: MemoryBackendOptions) {
    const store = options.store ?? new MemoryStore()
    super({ ...options, store })
    this.store = store
  }
}

/** Stores whose backends are of a faulty class. */
export function storesOf(
  Faulty: new (options: MemoryBackendOptions) => MemoryBackend,
): CreateStore {
  return async () => {
    const store = new MemoryStore()
    return {
      open: async (options) => new Faulty({ ...options, store }),
      dispose: async () => {},
    }
  }
}

/** Changes what a method of an inbox does; everything else goes to the inbox. */
export function changeInbox<Owner>(
  inbox: Inbox<Owner>,
  changes: Partial<Inbox<Owner>>,
): Inbox<Owner> {
  return new Proxy(inbox, {
    get: (target, key) => {
      if (Object.hasOwn(changes, key)) return Reflect.get(changes, key)
      const value: unknown = Reflect.get(target, key, target)
      return typeof value === 'function' ? value.bind(target) : value
    },
  })
}

/** A pause such as a round trip to a service makes. */
export function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}
