import assert from 'node:assert/strict'
import type {
  ChannelBackend,
  IncomingMessage,
  LineOptions,
  LineTurn,
  OutgoingMessage,
} from '../../backends/channel-backend.ts'
import type { Clause } from '../clause.ts'
import {
  counted,
  eventually,
  failureCodes,
  hasSettled,
  numbersOf,
  range,
  send,
  started,
  take,
  takeNumbers,
} from './steps.ts'

const leaseMs = 1_000
const events = ['connect', 'receive', 'disconnect'] as const

/** Messages `{ n, reply_channel }` of one client for one channel. */
function from(client: string, channel: string, ...numbers: readonly number[]): OutgoingMessage[] {
  return numbers.map((n) => ({ channel, content: { n, reply_channel: client } }))
}

/** Takes by lines what may be taken at once. */
function takeByLines(
  backend: ChannelBackend,
  channels: readonly string[] = events,
  options: Partial<LineOptions> = {},
  max = 100,
): Promise<readonly IncomingMessage[]> {
  return backend.receive(channels, { max, waitMs: 0, lines: { channels, leaseMs, ...options } })
}

function turnsOf(messages: readonly IncomingMessage[]): LineTurn[] {
  return messages.map(({ turn }) => {
    assert.ok(turn, 'a message came without its turn')
    return turn
  })
}

/** Passes on the turns of some messages, and tells what came next. */
async function advance(
  backend: ChannelBackend,
  messages: readonly IncomingMessage[],
  channels: readonly string[] = events,
): Promise<readonly IncomingMessage[]> {
  return (await backend.advanceLines(turnsOf(messages), { channels, leaseMs })).messages
}

/** Runs a line to its end from what was taken of it, telling the `n` of each message. */
async function runOut(
  backend: ChannelBackend,
  taken: readonly IncomingMessage[],
): Promise<unknown[]> {
  const told: unknown[] = []
  for (let next = taken; next.length > 0; next = await advance(backend, next)) {
    told.push(...numbersOf(next))
  }
  return told
}

export const lineClauses: readonly Clause[] = [
  {
    id: 'L1',
    promise: 'gives one message of a line at a time, in any process and over all its channels',
    async check({ open }) {
      const first = await open()
      const second = await open()
      await send(first, [
        ...from('ada', 'connect', 1),
        ...from('ada', 'receive', 2, 3),
        ...from('ada', 'disconnect', 4),
      ])

      const taken = await takeByLines(first)

      assert.deepEqual(numbersOf(taken), [1])
      assert.equal(taken[0]?.turn?.line, 'ada')
      assert.deepEqual(await takeByLines(second), [])
      assert.deepEqual(await takeByLines(first), [])
      await send(second, from('ada', 'receive', 5))
      assert.deepEqual(await takeByLines(second), [])
    },
  },
  {
    id: 'L2',
    promise: 'lets different lines, and messages without reply channel, go side by side',
    async check({ open }) {
      const backend = await open()
      await send(backend, [
        ...from('ada', 'receive', 1),
        ...from('bob', 'receive', 2),
        { channel: 'receive', content: { n: 3 } },
        ...from('ada', 'receive', 4),
        ...from('cleo', 'receive', 5),
        { channel: 'receive', content: { n: 6 } },
        { channel: 'plain', content: { n: 7, reply_channel: 'ada' } },
      ])

      const taken = await takeByLines(backend, ['receive', 'plain'], { channels: ['receive'] })

      assert.deepEqual(numbersOf(taken).sort(), [1, 2, 3, 5, 6, 7])
      const withTurn = taken.filter(({ turn }) => turn)
      assert.deepEqual(numbersOf(withTurn), [1, 2, 5])
      assert.equal(new Set(turnsOf(withTurn).map(({ token }) => token)).size, 3)
    },
  },
  {
    id: 'L3',
    promise: 'gives the next message of the line, in send order, to who passes its turn on',
    async check({ open }) {
      const backend = await open()
      const sender = await open()
      await send(sender, from('ada', 'connect', 1))
      const taken = await takeByLines(backend)
      await send(sender, [
        ...from('ada', 'disconnect', 2),
        ...from('ada', 'receive', 3),
        ...from('ada', 'connect', 4),
      ])
      assert.deepEqual(await takeByLines(backend), [])

      assert.deepEqual(await runOut(backend, taken), [1, 2, 3, 4])

      await send(sender, from('ada', 'receive', 5))
      assert.deepEqual(numbersOf(await takeByLines(sender)), [5])
    },
  },
  {
    id: 'L4',
    promise:
      'lets a turn lapse when its lease ends, wakes for what then comes, and refuses it after',
    async check({ open, clock }) {
      const dead = await open()
      const living = await open()
      await send(dead, from('ada', 'receive', 1, 2, 3))
      const lapsing = await takeByLines(dead)
      const waiting = started(
        living.receive(events, {
          max: 9,
          waitMs: Number.POSITIVE_INFINITY,
          lines: { channels: events, leaseMs },
        }),
      )
      await clock.advance(leaseMs - 1)
      assert.equal(await hasSettled(waiting), false)

      await clock.advance(1)
      const taken = await waiting

      assert.deepEqual(numbersOf(taken), [2])
      const late = await dead.advanceLines(turnsOf(lapsing), { channels: events, leaseMs })
      assert.deepEqual(late, { messages: [], lost: turnsOf(lapsing) })
      assert.deepEqual(await dead.renewLines(turnsOf(lapsing), leaseMs), [])
      assert.deepEqual(await takeByLines(dead), [])
      assert.deepEqual(await runOut(living, taken), [2, 3])
    },
  },
  {
    id: 'L5',
    promise: 'keeps a turn for as long as it is renewed',
    async check({ open, clock }) {
      const slow = await open({ expiryMs: 10_000 })
      const other = await open({ expiryMs: 10_000 })
      await send(slow, from('ada', 'receive', 1, 2))
      let turns: readonly LineTurn[] = turnsOf(await takeByLines(slow))

      for (const _renewal of range(1, 4)) {
        await clock.advance(leaseMs - 1)
        turns = await slow.renewLines(turns, leaseMs)
        assert.deepEqual(
          turns.map(({ line, expiresAt }) => [line, expiresAt]),
          [['ada', clock.now() + leaseMs]],
        )
        assert.deepEqual(await takeByLines(other), [])
      }

      const { messages, lost } = await slow.advanceLines(turns, { channels: events, leaseMs })
      assert.deepEqual([numbersOf(messages), lost], [[2], []])
    },
  },
  {
    id: 'L6',
    promise: 'leaves the next message ready for others when who passes the turn on cannot run it',
    async check({ open }) {
      const first = await open()
      const second = await open()
      await send(first, [...from('ada', 'connect', 1), ...from('ada', 'receive', 2, 3)])
      const taken = await takeByLines(first)
      const waiting = started(
        second.receive(['receive'], {
          max: 9,
          waitMs: Number.POSITIVE_INFINITY,
          lines: { channels: ['receive'], elsewhere: ['connect'], leaseMs },
        }),
      )
      assert.equal(await hasSettled(waiting), false)

      assert.deepEqual(await advance(first, taken, ['connect']), [])

      assert.deepEqual(numbersOf(await waiting), [2])
      assert.deepEqual(await advance(second, await waiting, []), [])
      assert.deepEqual(numbersOf(await takeByLines(first, ['receive'])), [3])
    },
  },
  {
    id: 'L7',
    promise: 'keeps what others receive in its place in the line',
    async check({ open }) {
      const backend = await open()
      await send(backend, [...from('ada', 'connect', 1), ...from('ada', 'receive', 2)])
      await send(backend, [...from('bob', 'receive', 3), ...from('ada', 'connect', 4)])
      const options = { elsewhere: ['connect'] }

      assert.deepEqual(numbersOf(await takeByLines(backend, ['receive'], options)), [3])
      const connecting = await takeByLines(backend, ['connect'], { elsewhere: ['receive'] })
      assert.deepEqual(numbersOf(connecting), [1])
      assert.deepEqual(await advance(backend, connecting, ['connect']), [])
      const receiving = await takeByLines(backend, ['receive'], options)
      assert.deepEqual(numbersOf(receiving), [2])

      assert.deepEqual(numbersOf(await advance(backend, receiving)), [4])
    },
  },
  {
    id: 'L8',
    promise: 'puts a message that is handed back first in its line, unless its turn has lapsed',
    async check({ open, clock }) {
      const first = await open()
      const second = await open()
      await send(first, [...from('ada', 'connect', 1), ...from('ada', 'receive', 2)])
      const taken = await takeByLines(first)

      await first.handBack(taken)

      const again = await takeByLines(second)
      assert.deepEqual(numbersOf(again), [1])
      assert.notEqual(again[0]?.turn?.token, taken[0]?.turn?.token)
      await clock.advance(leaseMs)
      let next: readonly IncomingMessage[] = []
      await eventually(async () => {
        next = await takeByLines(first)
        assert.deepEqual(numbersOf(next), [2])
      })
      await second.handBack(again)
      assert.deepEqual(await runOut(first, next), [2])
      assert.deepEqual(await takeByLines(second), [])
    },
  },
  {
    id: 'L9',
    promise: 'passes over expired messages of a line, parked or ready, and never stops at one',
    async check({ open, clock }) {
      const backend = await open({ expiryMs: 60_000 })
      const later = { expiresAt: clock.now() + 50_000 }
      const soon = { expiresAt: clock.now() + 500 }
      const [one, two, three, four, five] = from('ada', 'receive', 1, 2, 3, 4, 5)
      await send(backend, [
        { ...(one as OutgoingMessage), ...later },
        { ...(two as OutgoingMessage), ...soon },
        { ...(three as OutgoingMessage), ...later },
        { ...(four as OutgoingMessage), expiresAt: clock.now() + 600 },
        { ...(five as OutgoingMessage), ...later },
      ])
      const taken = await takeByLines(backend)
      assert.deepEqual(numbersOf(taken), [1])
      await clock.advance(500)

      const next = await advance(backend, taken)
      assert.deepEqual(numbersOf(next), [3])
      assert.deepEqual(await advance(backend, next, []), [])
      await clock.advance(100)

      await eventually(async () => {
        assert.deepEqual(numbersOf(await takeByLines(backend)), [5])
      })
      await backend.cleanUp()
      assert.equal(counted('dropped.expired', backend), 2)
    },
  },
  {
    id: 'L10',
    promise: 'counts parked messages to their channel, and bounds those of one line on it',
    async check({ open }) {
      const limits = { capacity: 8, lineCapacity: 3 }
      const backend = await open(limits)
      const sender = await open(limits)
      await send(sender, from('ada', 'receive', 1, 2, 3, 4))
      const taken = await takeByLines(backend)
      assert.deepEqual(numbersOf(taken), [1])
      assert.deepEqual(
        (await sender.channels()).map(({ channel, waiting }) => [channel, waiting]),
        [['receive', 3]],
      )

      assert.deepEqual(failureCodes(await sender.send(from('ada', 'receive', 5))), [
        [0, 'ERR_CHANNEL_FULL'],
      ])
      await send(sender, [...from('ada', 'connect', 6), ...from('bob', 'receive', 7, 8, 9, 10, 11)])
      assert.deepEqual(failureCodes(await sender.send(from('bob', 'receive', 12))), [
        [0, 'ERR_CHANNEL_FULL'],
      ])

      assert.equal(counted('dropped.full', sender), 2)
      assert.deepEqual(await runOut(backend, taken), [1, 2, 3, 4])
      assert.deepEqual(numbersOf(await takeByLines(backend)), [6, 7])
      await send(sender, from('ada', 'receive', 13))
    },
  },
  {
    id: 'L11',
    promise: 'leaves nothing of a line that has run out, lapsed or was flushed',
    async check({ open, clock }) {
      const backend = await open({ expiryMs: 2_000 })
      await send(backend, [...from('ada', 'receive', 1, 2), ...from('bob', 'receive', 3, 4)])
      const taken = await takeByLines(backend)
      assert.deepEqual(numbersOf(taken), [1, 3])
      await runOut(backend, taken.slice(0, 1))
      await clock.advance(2_000)
      await backend.cleanUp()
      assert.deepEqual(await backend.channels(), [])

      await send(backend, from('ada', 'receive', 5, 6))
      const beforeFlush = await takeByLines(backend)
      assert.deepEqual(numbersOf(beforeFlush), [5])
      await backend.flush()
      assert.deepEqual(await backend.channels(), [])
      assert.deepEqual(await advance(backend, beforeFlush), [])
      await send(backend, from('ada', 'receive', 7))
      assert.deepEqual(numbersOf(await takeByLines(backend)), [7])
    },
  },
  {
    id: 'L12',
    promise: 'lets a line go on when a receiver without lines took its ready message',
    async check({ open, clock }) {
      const first = await open({ expiryMs: 60_000 })
      await send(first, from('ada', 'receive', 1, 2, 3))
      const taken = await takeByLines(first)
      await advance(first, taken, [])
      assert.deepEqual(await takeNumbers(first, 'receive'), [2])
      assert.deepEqual(await take(first, 'receive'), [])

      await clock.advance(leaseMs)

      await eventually(async () => {
        assert.deepEqual(numbersOf(await takeByLines(first)), [3])
      })
    },
  },
]
