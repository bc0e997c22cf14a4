import { describe, expect, it } from 'vitest'
import { sqlPlaces } from '../support/sql-places.ts'
import { runTransactions } from '../support/transaction-run.ts'

describe('inTransaction in processes that are killed', () => {
  it.each(Object.entries(sqlPlaces))(
    'sends one message for each row that is committed, and none for others, on %s',
    async (name, openPlace) => {
      await using place = await openPlace()
      const isSqlite = name === 'SQLite'

      const result = await runTransactions({
        url: await place.newUrl(),
        count: 1_200,
        killEvery: 300,
        senders: isSqlite ? 1 : 2,
        workers: 2,
      })

      expect(result).toMatchObject({ phantoms: 0, missing: 0, doubled: 0, wronglyReceived: 0 })
      expect(result.tried).toBeGreaterThanOrEqual(1_200)
      expect(result.committed).toBeGreaterThan(600)
      expect(result.committed).toBeLessThan(1_000)
      expect(result.kills).toBeGreaterThanOrEqual(3)
      // At most once: what a worker has taken goes with it.
      expect(result.lostWithWorkers).toBeLessThanOrEqual(result.kills * 20)
    },
  )
})
