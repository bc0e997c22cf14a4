import { describe, expect, it } from 'vitest'
import { BatchQueue } from '../../../../src/backends/redis/batch-queue.ts'

function newQueue(account: (size: number, batch: number) => string) {
  const batches: { readonly size: number; readonly number: number; readonly part: number }[] = []
  let number = 0
  const queue = new BatchQueue(
    () => ({ sender: 'own', number: ++number }),
    async (entries, id) => {
      batches.push({ size: entries.length, number: id.number, part: id.part })
      return account(entries.length, batches.length)
    },
  )
  return { queue, batches }
}

const entries = (count: number, channel: string) =>
  Array.from({ length: count }, () => ({ body: 'x', channel }))

describe('BatchQueue', () => {
  it('joins the calls of a turn, and divides what is too much for one batch', async () => {
    const { queue, batches } = newQueue(() => '')

    await Promise.all([queue.add(entries(300, 'a')), queue.add(entries(300, 'b'))])

    expect(batches.map(({ size }) => size)).toEqual([500, 100])
  })

  it('lets nothing overtake what an earlier part of its call had no room for', async () => {
    const { queue, batches } = newQueue((_size, batch) => (batch === 1 ? '500f' : ''))

    const outcomes = await queue.add([...entries(510, 'full'), ...entries(5, 'roomy')])

    expect(batches.map(({ size }) => size)).toEqual([500, 5])
    expect(outcomes.flatMap((outcome, place) => (outcome === 'full' ? [place] : []))).toEqual([
      499, 500, 501, 502, 503, 504, 505, 506, 507, 508, 509,
    ])
  })

  it('numbers the parts of a marked call the same way each time', async () => {
    const { queue, batches } = newQueue(() => '')
    const mark = { sender: 'outbox', number: 7 }

    await Promise.all([queue.add(entries(3, 'a')), queue.add(entries(600, 'a'), mark)])
    await queue.add(entries(600, 'a'), mark)

    expect(batches.slice(1)).toEqual([
      { size: 500, number: 7, part: 0 },
      { size: 100, number: 7, part: 1 },
      { size: 500, number: 7, part: 0 },
      { size: 100, number: 7, part: 1 },
    ])
  })
})
