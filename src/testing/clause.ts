import type { BackendOptions, ChannelBackend } from '../backends/channel-backend.ts'
import { systemClock } from '../internal/clock.ts'
import { FakeClock } from './fake-clock.ts'

/** The data that one or more backend objects share. Opening it twice means two processes. */
export interface TestStore {
  /** Makes a backend on this store. Everything in `options` is to be passed on to it. */
  open(options?: BackendOptions): Promise<ChannelBackend>
  /**
   * Cuts every connection between the backends and their service, and keeps new ones from being
   * made, until the returned function has run. Left out where there is nothing to cut.
   */
  breakConnection?(): Promise<() => Promise<void>>
  /** Removes the store; the suite has closed its backends. */
  dispose(): Promise<void>
}

/** What a clause is checked with. */
export interface ClauseContext {
  /** The clock of every backend that is opened here. */
  readonly clock: FakeClock
  readonly store: TestStore
  /** Opens a backend on the clause's store: one more process. */
  open(options?: BackendOptions): Promise<ChannelBackend>
  /** Opens a backend on a store of its own, which must have nothing to do with the other. */
  openElsewhere(options?: BackendOptions): Promise<ChannelBackend>
}

/** One numbered promise of `docs/backend-contract.md`. */
export interface Clause {
  /** A letter and a number, never given to another promise. */
  readonly id: `${'N' | 'C' | 'D' | 'A' | 'G' | 'R' | 'L' | 'P' | 'S' | 'X'}${number}`
  /** The promise in a few words, third person present. */
  readonly promise: string
  /** Rejects when the promise is not kept. */
  check(context: ClauseContext): Promise<void>
}

/** How long a clause may take. */
export interface RunClauseOptions {
  /** In milliseconds of real time, after which the clause counts as broken. Default 15,000. */
  readonly deadlineMs?: number
}

/**
 * Checks one clause on a fresh store, and closes and disposes of everything afterwards. Needs no
 * test runner.
 *
 * @throws what the clause found, an `AssertionError` as a rule.
 */
export async function runClause(
  clause: Clause,
  createStore: () => Promise<TestStore>,
  { deadlineMs = 15_000 }: RunClauseOptions = {},
): Promise<void> {
  const clock = new FakeClock()
  const stores: TestStore[] = []
  const backends: ChannelBackend[] = []
  const openStore = async (): Promise<TestStore> => {
    const store = await createStore()
    stores.push(store)
    return store
  }
  const openOn = async (store: TestStore, options?: BackendOptions): Promise<ChannelBackend> => {
    const backend = await store.open({ ...options, clock })
    backends.push(backend)
    return backend
  }
  try {
    const store = await openStore()
    const context: ClauseContext = {
      clock,
      store,
      open: (options) => openOn(store, options),
      openElsewhere: async (options) => openOn(await openStore(), options),
    }
    await withDeadline(clause, clause.check(context), deadlineMs)
  } finally {
    // A backend that cannot close is X2's and X3's to report.
    await Promise.allSettled(backends.map((backend) => backend.close()))
    for (const store of stores) await store.dispose()
  }
}

async function withDeadline(clause: Clause, check: Promise<void>, deadlineMs: number) {
  let cancel = (): void => {}
  const late = new Promise<never>((_resolve, reject) => {
    cancel = systemClock.schedule(
      () => reject(new Error(`${clause.id} was not settled within ${deadlineMs} ms`)),
      deadlineMs,
    )
  })
  try {
    await Promise.race([check, late])
  } finally {
    cancel()
  }
}
