import { describe, expect, it } from 'vitest'
import { InboxReader } from '../../../../src/backends/redis/inbox-reader.ts'
import { systemClock } from '../../../../src/internal/clock.ts'

const newReader = () =>
  new InboxReader({
    clock: systemClock,
    take: async () => ({ isOpen: true, handed: 0, entries: [], answer: '0' }),
    reopen: async () => {},
  })

function handOver(number: number, content: string): Buffer {
  const entry = `m${'9'.repeat(16)}1:x${content}`
  return Buffer.from(`${number} :` + `:${entry.length}:${entry}`)
}

const receive = (reader: InboxReader) =>
  reader.receive({ max: 9, waitMs: 0 }, (entries) => entries.map(({ rest }) => String(rest)))

describe('InboxReader', () => {
  it('keeps a hand-over that two masters of a moving slot tell of once', async () => {
    const reader = newReader()

    for (const number of [7, 7, 8, 7]) reader.hear(handOver(number, `of ${number}`))
    reader.hear(Buffer.from('8 '))
    reader.hear(handOver(8, 'late'))

    expect(await receive(reader)).toEqual(['of 7', 'of 8'])
  })

  it('goes on with higher numbers behind what was lost', async () => {
    const reader = newReader()

    reader.hear(handOver(1, 'first'))
    reader.hear(Buffer.from('5 '))
    reader.hear(handOver(6, 'second'))

    expect(await receive(reader)).toEqual(['first', 'second'])
  })
})
