import { channelBackendClauses, runClause } from 'channelkit/testing'
import { describe, expect, it } from 'vitest'
import type { CreateStore } from '../support/broken-backends/backend.ts'
import { faultless, faults } from '../support/broken-backends/faults.ts'

/** The ids of the clauses that a backend breaks. */
async function brokenBy(createStore: CreateStore): Promise<string[]> {
  const outcomes = await Promise.allSettled(
    channelBackendClauses.map((clause) => runClause(clause, createStore, { deadlineMs: 3_000 })),
  )
  return channelBackendClauses
    .filter((_clause, index) => outcomes[index]?.status === 'rejected')
    .map(({ id }) => id)
}

describe('channelBackendClauses', () => {
  it('find no fault with a backend that has none', async () => {
    expect(await brokenBy(faultless)).toEqual([])
  })

  it.each(faults)(
    'find that a backend that %s breaks exactly %s',
    async (_fault, broken, create) => {
      expect(await brokenBy(create)).toEqual(broken.split(' '))
    },
  )

  it('are each broken by at least one of the faults', () => {
    const found = new Set(faults.flatMap(([, broken]) => broken.split(' ')))

    expect(channelBackendClauses.map(({ id }) => id).filter((id) => !found.has(id))).toEqual([])
  })
})
