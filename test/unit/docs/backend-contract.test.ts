import { readFile } from 'node:fs/promises'
import { channelBackendClauses } from 'channelkit/testing'
import { describe, expect, it } from 'vitest'

describe('docs/backend-contract.md', () => {
  it('lists exactly the clauses of the suite, in their order', async () => {
    const page = await readFile(
      new URL('../../../docs/backend-contract.md', import.meta.url),
      'utf8',
    )

    const listed = [...page.matchAll(/^- \*\*([A-Z]\d+)\*\* /gm)].map(([, id]) => id)

    expect(listed).toEqual(channelBackendClauses.map(({ id }) => id))
  })

  it('gives no number to two clauses', () => {
    const ids = channelBackendClauses.map(({ id }) => id)

    expect(ids).toEqual([...new Set(ids)])
  })
})
