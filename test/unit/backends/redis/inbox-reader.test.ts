import { describe, expect, it } from 'vitest'
import { InboxReader, type Taken } from '../../../../src/backends/redis/inbox-reader.ts'
import { systemClock } from '../../../../src/internal/clock.ts'

const nothing: Taken = {
  isOpen: true,
  handed: 0,
  entries: [],
  answer: '0',
  published: { count: 0, number: 0 },
}

const newReader = (...answers: readonly Partial<Taken>[]) => {
  const left = [...answers]
  return new InboxReader({
    clock: systemClock,
    window: 1,
    take: async () => ({ ...nothing, ...left.shift() }),
    reopen: async () => {},
  })
}

const entryOf = (content: string) => `m${'9'.repeat(16)}1:x${content}`

function handOver(number: number, content: string): Buffer {
  const entry = entryOf(content)
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

  it.each(['before', 'behind'])(
    'keeps once what it heard %s it took it, since its server counted nobody who heard it',
    async (when) => {
      const entries = ['a', 'b'].map((content) => Buffer.from(entryOf(content)))
      const reader = newReader(
        ...(when === 'before' ? [{}] : []),
        { entries, published: { count: 1, number: 7 } },
        {},
      )
      const found: string[] = []

      if (when === 'before') {
        reader.hear(handOver(7, 'a'))
        found.push(...(await receive(reader)), ...(await receive(reader)))
      }
      found.push(...(await receive(reader)))
      reader.hear(handOver(7, 'a'))
      found.push(...(await receive(reader)))

      expect(found).toEqual(['a', 'b'])
    },
  )

  it('goes on with higher numbers behind what was lost', async () => {
    const reader = newReader()

    reader.hear(handOver(1, 'first'))
    reader.hear(Buffer.from('5 '))
    reader.hear(handOver(6, 'second'))

    expect(await receive(reader)).toEqual(['first', 'second'])
  })
})
