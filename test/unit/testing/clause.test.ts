import { MemoryBackend } from 'channelkit/memory'
import { type Clause, runClause } from 'channelkit/testing'
import { describe, expect, it } from 'vitest'

function clauseOf(check: Clause['check']): Clause {
  return { id: 'C99', promise: 'is made up', check }
}

describe('runClause', () => {
  it('closes every backend and disposes of every store, also after a failure', async () => {
    const events: string[] = []
    const createStore = async () => ({
      open: async () => {
        const backend = new MemoryBackend()
        const close = backend.close.bind(backend)
        backend.close = async () => {
          events.push('close')
          await close()
        }
        return backend
      },
      dispose: async () => {
        events.push('dispose')
      },
    })
    const clause = clauseOf(async ({ open, openElsewhere }) => {
      await open()
      await openElsewhere()
      throw new RangeError('the clause is broken')
    })

    await expect(runClause(clause, createStore)).rejects.toThrow('the clause is broken')

    expect(events).toEqual(['close', 'close', 'dispose', 'dispose'])
  })

  it('rejects with the name of a clause that does not settle', async () => {
    const clause = clauseOf(() => new Promise(() => {}))
    const createStore = async () => ({
      open: async () => new MemoryBackend(),
      dispose: async () => {},
    })

    await expect(runClause(clause, createStore, { deadlineMs: 5 })).rejects.toThrow(
      'C99 was not settled within 5 ms',
    )
  })
})
