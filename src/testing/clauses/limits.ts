import assert from 'node:assert/strict'
import type { OutgoingMessage } from '../../backends/channel-backend.ts'
import type { Clause } from '../clause.ts'
import {
  counted,
  drain,
  eventually,
  failureCodes,
  numbered,
  numbersOf,
  range,
  send,
  sendToGroup,
  takeNumbers,
} from './steps.ts'

/** Expiry and capacity of channels. */
export const limitClauses: readonly Clause[] = [
  {
    id: 'C9',
    promise: 'never delivers a message from its time of expiry on, and every younger one',
    async check({ open, clock }) {
      const backend = await open({ expiryMs: 1_000 })
      await send(backend, numbered('news', 1))
      await clock.advance(400)
      await send(backend, numbered('news', 2))
      await clock.advance(400)
      await send(backend, numbered('news', 3))
      await clock.advance(200)
      assert.deepEqual(await takeNumbers(backend, 'news'), [2, 3])

      await send(backend, numbered('news', ...range(1, 10)))
      await clock.advance(999)
      assert.deepEqual(await takeNumbers(backend, 'news'), range(1, 10))

      const at = (n: number, expiresAt: number): OutgoingMessage => ({
        channel: 'news',
        content: { n },
        expiresAt: clock.now() + expiresAt,
      })
      await send(backend, [at(1, 100), at(2, 5_000), at(3, 100), at(4, 5_000), at(5, 0)])
      await clock.advance(100)
      assert.deepEqual(await takeNumbers(backend, 'news', 2), [2, 4])
      assert.deepEqual(await takeNumbers(backend, 'news'), [])
    },
  },
  {
    id: 'C10',
    promise: 'rejects at once what is sent to a full channel, and only that',
    async check({ open, clock }) {
      const backend = await open({ capacity: 3, expiryMs: 1_000 })
      const other = await open({ capacity: 3, expiryMs: 1_000 })

      const batch = [
        ...numbered('news', 1, 2, 3, 4),
        ...numbered('other', 1),
        ...numbered('news', 5),
      ]
      assert.deepEqual(failureCodes(await backend.send(batch)), [
        [3, 'ERR_CHANNEL_FULL'],
        [5, 'ERR_CHANNEL_FULL'],
      ])
      assert.deepEqual(failureCodes(await other.send(numbered('news', 6))), [
        [0, 'ERR_CHANNEL_FULL'],
      ])
      assert.deepEqual(await takeNumbers(other, 'news', 1), [1])
      await send(backend, numbered('news', 7))
      assert.deepEqual(await takeNumbers(backend, 'news'), [2, 3, 7])
      assert.deepEqual(await takeNumbers(backend, 'other'), [1])

      await send(backend, numbered('news', 1, 2, 3))
      await clock.advance(1_000)
      await send(backend, numbered('news', 4, 5, 6))
      assert.deepEqual(await takeNumbers(backend, 'news'), [4, 5, 6])

      const crowd = range(1, 20).map((n) => (n % 2 ? backend : other).send(numbered('crowd', n)))
      const failures = (await Promise.all(crowd)).flat()
      assert.equal(failures.length, 17)
      assert.equal((await takeNumbers(backend, 'crowd')).length, 3)
    },
  },
  {
    id: 'C11',
    promise:
      'takes the capacity of the first rule, glob or expression, that matches the whole name',
    async check({ open }) {
      const backend = await open({
        capacity: 1,
        channelCapacity: [
          ['slow.*', 2],
          [/fast\.\d+/, 4],
          ['slow.special', 9],
          ['*.end', 3],
          ['exact', 5],
        ],
      })
      const expected: [channel: string, capacity: number][] = [
        ['slow.down', 2],
        ['slow.special', 2],
        ['fast.12', 4],
        ['fast.12.end', 3],
        ['fast.x', 1],
        ['very.fast.1', 1],
        ['the.end', 3],
        ['exact', 5],
        ['exactly', 1],
        ['slowly', 1],
        ['other', 1],
      ]

      for (const [channel, capacity] of expected) {
        const failures = await backend.send(numbered(channel, ...range(1, 10)))
        assert.equal(10 - failures.length, capacity, channel)
        assert.equal((await takeNumbers(backend, channel)).length, capacity, channel)
        assert.equal(backend.limits.capacityOf(channel), capacity, channel)
      }
    },
  },
  {
    id: 'C18',
    promise: 'deletes what expired though nobody reads it, and keeps nothing of a drained channel',
    async check({ open, clock }) {
      const backend = await open({ expiryMs: 1_000 })
      const inbox = await backend.openInbox<string>()
      const reply = inbox.newChannel('client')
      await backend.groupAdd([{ group: 'chat', channel: reply }])

      await send(backend, [
        ...numbered('news', 1, 2),
        ...numbered('other', 3),
        ...numbered(reply, 4),
      ])
      await clock.advance(1)
      await send(backend, numbered('news', 5))
      await clock.advance(999)
      const before = counted('dropped.expired', backend)
      const deleted = await backend.cleanUp()
      assert.equal(before + deleted, 4)
      assert.equal(await backend.cleanUp(), 0)
      assert.deepEqual(numbersOf(await drain(inbox)), [])
      assert.deepEqual(await takeNumbers(backend, 'news'), [5])
      assert.deepEqual(await backend.channels(), [])

      await send(backend, [...numbered('news', 6, 7), ...numbered(reply, 8)])
      await sendToGroup(backend, 'chat', 9)
      await eventually(async () => {
        await clock.advance(1_000)
        assert.equal(counted('dropped.expired', backend), 8)
      })
      assert.equal(await backend.cleanUp(), 0)
    },
  },
]
