import { channelBackendClauses } from './channel-backend-clauses.ts'
import { runClause, type TestStore } from './clause.ts'

// Only a Vitest worker has this set; elsewhere the module loads without Vitest being installed.
const vitest = process.env.VITEST ? await import('vitest') : undefined

/**
 * Declares one Vitest test for each clause of the backend contract.
 *
 * @param name - what the tests are grouped under, such as the backend's class.
 * @param createStore - makes a fresh, empty store; called once or more for each clause.
 *
 * @example
 * ```ts
 * describeChannelBackend('MemoryBackend', async () => {
 *   const store = new MemoryStore()
 *   return {
 *     open: async (options) => new MemoryBackend({ ...options, store }),
 *     dispose: async () => {},
 *   }
 * })
 * ```
 */
export function describeChannelBackend(name: string, createStore: () => Promise<TestStore>): void {
  if (!vitest) {
    throw new Error(
      'describeChannelBackend runs inside Vitest; start it with vitest, or call runClause for each of channelBackendClauses',
    )
  }
  const { describe, it } = vitest
  describe(name, () => {
    for (const clause of channelBackendClauses) {
      it(`${clause.id} ${clause.promise}`, () => runClause(clause, createStore))
    }
  })
}
