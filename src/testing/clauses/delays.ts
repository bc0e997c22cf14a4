import assert from 'node:assert/strict'
import type { ChannelBackend, OutgoingMessage } from '../../backends/channel-backend.ts'
import type { Clause } from '../clause.ts'
import type { FakeClock } from '../fake-clock.ts'
import {
  advanceUntilSettled,
  counted,
  eventually,
  failureCodes,
  hasSettled,
  numbered,
  numbersOf,
  range,
  rejectsWith,
  send,
  started,
  takeNumbers,
} from './steps.ts'

const day = 86_400_000

/** A message `{ n }` for a channel, `delayMs` from now. */
function later(
  clock: FakeClock,
  n: number,
  delayMs: number,
  changes: Partial<OutgoingMessage> = {},
): OutgoingMessage {
  return { channel: 'later', content: { n }, deliverAt: clock.now() + delayMs, ...changes }
}

/** Takes what comes on a channel until there are so many, telling the `n` of each. */
async function takeSo(
  backend: ChannelBackend,
  clock: FakeClock,
  many: number,
  stepMs = 100,
): Promise<unknown[]> {
  const found: unknown[] = []
  while (found.length < many) {
    const receive = started(backend.receive(['later'], { max: 100, waitMs: 1e12 }))
    found.push(...numbersOf(await advanceUntilSettled(clock, receive, stepMs)))
  }
  return found
}

/** Has all that is due put on its channel, as far as this backend can see. */
async function settleDown(backend: ChannelBackend): Promise<void> {
  await backend.cleanUp()
}

/** Messages that are sent for later. */
export const delayClauses: readonly Clause[] = [
  {
    id: 'D1',
    promise: 'delivers a message not before its time, and within a second of it',
    async check({ open, clock }) {
      const sender = await open()
      const receiver = await open()
      const waiting = started(receiver.receive(['later'], { max: 10, waitMs: 1e12 }))
      await send(sender, [later(clock, 1, 5_000), later(clock, 0, 0, { channel: 'now' })])
      await clock.advance(4_999)
      assert.equal(await hasSettled(waiting), false)
      assert.deepEqual(await takeNumbers(receiver, 'later'), [])

      await eventually(async () => {
        await clock.advance(10)
        assert.ok(await hasSettled(waiting))
      })

      assert.deepEqual(numbersOf(await waiting), [1])
      await send(sender, [later(clock, 2, 5_000)])
      await clock.advance(4_999)
      await receiver.cleanUp()
      assert.deepEqual(await takeNumbers(receiver, 'later'), [])
      await clock.advance(1)
      await receiver.cleanUp()
      assert.deepEqual(await takeNumbers(receiver, 'later'), [2])
      await eventually(async () => {
        assert.deepEqual(await takeNumbers(receiver, 'now'), [0])
      })
    },
  },
  {
    id: 'D2',
    promise: 'delivers in the order of the times, behind what was sent before them',
    async check({ open, clock }) {
      const backend = await open()
      await send(backend, [
        later(clock, 4, 3_000),
        later(clock, 2, 1_000),
        later(clock, 3, 2_000),
        ...numbered('later', 1),
      ])
      await clock.advance(3_000)
      await settleDown(backend)
      await send(backend, numbered('later', 5))

      assert.deepEqual(await takeNumbers(backend, 'later'), [1, 2, 3, 4, 5])
    },
  },
  {
    id: 'D3',
    promise: 'takes back by cancel what waits for its time, and says whether it did',
    async check({ open, clock }) {
      const sender = await open()
      const other = await open()
      await send(sender, [
        later(clock, 1, 1_000, { id: 'a' }),
        later(clock, 2, 1_000, { id: 'b' }),
        later(clock, 3, 1_000, { id: 'a', channel: 'elsewhere' }),
      ])

      assert.deepEqual(await other.cancel('later', ['a', 'nobody', 'A']), [true, false, false])
      assert.deepEqual(await sender.cancel('later', ['a']), [false])
      await clock.advance(1_000)
      await settleDown(other)

      assert.deepEqual(await takeNumbers(other, 'later'), [2])
      assert.deepEqual(await takeNumbers(other, 'elsewhere'), [3])
      assert.deepEqual(await other.cancel('later', ['b']), [false])
      await rejectsWith(other.cancel('bad name', ['a']), 'ERR_INVALID_NAME')
      await rejectsWith(other.cancel('later', ['bad id']), 'ERR_INVALID_ARGUMENT')
    },
  },
  {
    id: 'D4',
    promise: 'stores one message of an id while it waits, and with once until an hour later',
    async check({ open, clock }) {
      const first = await open()
      const second = await open()
      const once = { id: 'report.1', once: true }
      await send(first, [later(clock, 1, 1_000, { id: 'a' }), later(clock, 2, 1_000, once)])
      await send(second, [later(clock, 3, 500, { id: 'a' }), later(clock, 4, 2_000, once)])
      await clock.advance(2_000)
      await settleDown(second)
      assert.deepEqual((await takeNumbers(second, 'later')).sort(), [1, 2])

      await send(second, [later(clock, 5, 0, { id: 'a' }), later(clock, 6, 0, once)])
      await clock.advance(1_000)
      await settleDown(second)
      assert.deepEqual(await takeNumbers(second, 'later'), [5])

      await clock.advance(3_600_000)
      await settleDown(first)
      await send(first, [later(clock, 7, 0, once)])
      await clock.advance(1_000)
      await settleDown(first)
      assert.deepEqual(await takeNumbers(first, 'later'), [7])
    },
  },
  {
    id: 'D5',
    promise: 'outlives who sent it, and is delivered once among many processes',
    async check({ open, clock }) {
      const sender = await open()
      await send(
        sender,
        range(1, 40).map((n) => later(clock, n, 500 + (n % 4) * 10)),
      )
      await sender.close()
      const receivers = await Promise.all(range(1, 3).map(() => open()))
      const found: unknown[] = []
      const stop = new AbortController()
      const loops = receivers.map(async (receiver) => {
        while (!stop.signal.aborted) {
          const options = { max: 7, waitMs: 1e12, signal: stop.signal }
          found.push(...numbersOf(await receiver.receive(['later'], options)))
        }
      })
      const ended = Promise.allSettled(loops)
      await eventually(async () => {
        await clock.advance(100)
        assert.equal(found.length, 40)
      })
      await clock.advance(5_000)
      stop.abort()
      await ended

      assert.deepEqual(
        found.sort((a, b) => Number(a) - Number(b)),
        range(1, 40),
      )
    },
  },
  {
    id: 'D6',
    promise: 'counts expiry from its time, and takes no place on the channel before',
    async check({ open, clock }) {
      const backend = await open({ capacity: 2, expiryMs: 1_000 })
      await send(backend, [later(clock, 1, 5_000), later(clock, 2, 5_000), later(clock, 3, 5_000)])
      await send(backend, numbered('later', 8, 9))
      assert.deepEqual(await takeNumbers(backend, 'later'), [8, 9])
      await clock.advance(4_999)
      assert.equal(await backend.cleanUp(), 0)
      assert.deepEqual(await backend.channels(), [])
      await clock.advance(1)
      await settleDown(backend)
      await clock.advance(999)
      assert.deepEqual(await takeNumbers(backend, 'later', 2), [1, 2])
      await clock.advance(1)
      assert.deepEqual(await takeNumbers(backend, 'later'), [])

      await send(backend, [
        later(clock, 4, 1_000, { expiresAt: clock.now() + 500 }),
        later(clock, 5, 1_000),
      ])
      await clock.advance(1_000)
      await settleDown(backend)
      assert.deepEqual(await takeNumbers(backend, 'later'), [5])
    },
  },
  {
    id: 'D7',
    promise: 'refuses more than delayedCapacity for one channel, and only that',
    async check({ open, clock }) {
      const backend = await open({ delayedCapacity: 2 })
      const failures = await backend.send([
        later(clock, 1, 1_000),
        later(clock, 2, 1_000, { id: 'b' }),
        later(clock, 3, 1_000),
        later(clock, 4, 1_000, { channel: 'other' }),
        ...numbered('later', 5),
      ])
      assert.deepEqual(failureCodes(failures), [[2, 'ERR_CHANNEL_FULL']])
      assert.equal(counted('dropped.full', backend), 1)
      assert.equal(counted('sent', backend), 4)

      await backend.cancel('later', ['b'])
      await send(backend, [later(clock, 6, 1_000)])
      await clock.advance(1_000)
      await settleDown(backend)
      await send(backend, [later(clock, 7, 1_000), later(clock, 8, 1_000)])
      assert.deepEqual((await takeNumbers(backend, 'later')).sort(), [1, 5, 6])

      // One that is not stored takes no place, nor finds any wanting.
      const again = { channel: 'again', id: 'b' }
      await send(backend, [
        ...[1, 2, 3].map((n) => later(clock, n, 1_000, again)),
        later(clock, 4, 1_000, { channel: 'again' }),
        later(clock, 5, 1_000, again),
      ])
    },
  },
  {
    id: 'D8',
    promise: 'refuses a time that is none or too far, a bad id, and a reply channel',
    async check({ open, clock }) {
      const backend = await open()
      const inbox = await backend.openInbox<string>()
      const failures = await backend.send([
        later(clock, 1, Number.NaN),
        later(clock, 2, 367 * day),
        later(clock, 3, 1_000, { id: 'a b' }),
        { channel: 'later', content: { n: 4 }, id: 'alone' },
        later(clock, 5, 1_000, { channel: inbox.newChannel('ada') }),
        later(clock, 6, 365 * day),
        later(clock, 7, -5_000),
      ])

      assert.deepEqual(
        failureCodes(failures),
        range(0, 4).map((index) => [index, 'ERR_INVALID_ARGUMENT']),
      )
      assert.deepEqual(await takeSo(backend, clock, 1), [7])
    },
  },
  {
    id: 'D9',
    promise: 'carries any content until its time, and forgets it in a flush',
    async check({ open, clock, openElsewhere }) {
      const backend = await open()
      const elsewhere = await openElsewhere()
      const content = { bytes: new Uint8Array([0, 1, 255, 10]), text: 'a\u0000\n😀', n: 1 }
      await send(backend, [later(clock, 0, 1_000, { content })])
      content.n = 2
      await send(elsewhere, [later(clock, 3, 1_000, { id: 'a' })])
      await clock.advance(1_000)
      await settleDown(backend)
      const [message] = await backend.receive(['later'], { max: 1, waitMs: 0 })
      assert.deepEqual(message?.content, {
        bytes: new Uint8Array([0, 1, 255, 10]),
        text: 'a\u0000\n😀',
        n: 1,
      })
      assert.equal(message?.attempts, 0)

      await send(backend, [later(clock, 4, 1_000, { id: 'a', once: true })])
      await backend.flush()
      await send(backend, [later(clock, 5, 2_000, { id: 'a', once: true })])
      await clock.advance(2_000)
      await settleDown(backend)
      await settleDown(elsewhere)
      assert.deepEqual(await takeNumbers(backend, 'later'), [5])
      assert.deepEqual(await takeNumbers(elsewhere, 'later'), [3])
    },
  },
]
