import assert from 'node:assert/strict'
import type {
  ChannelBackend,
  HeldMessage,
  IncomingMessage,
  OutgoingMessage,
  Settlement,
} from '../../backends/channel-backend.ts'
import type { Content } from '../../content.ts'
import type { Clause } from '../clause.ts'
import {
  advanceUntilSettled,
  counted,
  hasSettled,
  numbered,
  numbersOf,
  send,
  started,
  takeNumbers,
} from './steps.ts'

const leaseMs = 10_000
const hold = { channels: ['jobs'], leaseMs }

/** Takes what waits on the channel, with holds. */
function takeHeld(backend: ChannelBackend, max = 100): Promise<readonly IncomingMessage[]> {
  return backend.receive(['jobs'], { max, waitMs: 0, hold })
}

function heldOf(message: IncomingMessage | undefined): HeldMessage {
  assert.ok(message?.hold, 'a message came without its hold')
  return { channel: message.channel, hold: message.hold }
}

/** Ends the holds of messages, each with the same in its place. */
function ending(
  messages: readonly IncomingMessage[],
  next?: Settlement['next'],
): readonly Settlement[] {
  return messages.map((message) => ({ message: heldOf(message), ...(next && { next }) }))
}

/** Messages that are given again when whoever took them has not settled them. */
export const holdClauses: readonly Clause[] = [
  {
    id: 'A1',
    promise: 'gives a message again, and once, when the hold of who took it lapses',
    async check({ open, clock }) {
      const first = await open()
      const second = await open()
      const content = { n: 1, bytes: new Uint8Array([0, 255]), text: 'a\u0000\n' }
      await send(first, [{ channel: 'jobs', content }, ...numbered('other', 7)])
      const both = { channels: ['jobs'], leaseMs }
      const taken = await first.receive(['jobs', 'other'], { max: 9, waitMs: 0, hold: both })
      assert.deepEqual(numbersOf(taken).sort(), [1, 7])
      assert.equal(taken.find(({ channel }) => channel === 'other')?.hold, undefined)
      const held = heldOf(taken.find(({ channel }) => channel === 'jobs'))
      assert.equal(held.hold.expiresAt, clock.now() + leaseMs)
      assert.deepEqual(await second.channels(), [])
      await first.close()

      const waiting = started(second.receive(['jobs', 'other'], { max: 9, waitMs: 1e12, hold }))
      await clock.advance(leaseMs - 1)
      assert.equal(await hasSettled(waiting), false)
      const [again, ...more] = await advanceUntilSettled(clock, waiting, 10)

      assert.deepEqual(more, [])
      assert.deepEqual(again?.content, content)
      assert.equal(again?.attempts, 1)
      assert.notEqual(again?.hold?.token, held.hold.token)
      assert.equal(counted('redelivered', first, second), 1)
      assert.deepEqual(await takeNumbers(second, 'jobs'), [])
    },
  },
  {
    id: 'A2',
    promise: 'never gives again what was settled in time, and says what was not',
    async check({ open, clock }) {
      const backend = await open()
      const other = await open()
      await send(backend, numbered('jobs', 1, 2, 3))
      const taken = await takeHeld(backend)
      assert.deepEqual(numbersOf(taken), [1, 2, 3])

      assert.deepEqual(await backend.settle(ending(taken.slice(0, 2))), ['settled', 'settled'])
      assert.deepEqual(await backend.settle(ending(taken.slice(0, 1))), ['lost'])
      await clock.advance(leaseMs)
      await other.cleanUp()
      assert.deepEqual(await other.settle(ending(taken.slice(2))), ['lost'])

      assert.deepEqual(await takeNumbers(other, 'jobs'), [3])
      await clock.advance(2 * leaseMs)
      await other.cleanUp()
      assert.deepEqual(await takeNumbers(other, 'jobs'), [])
    },
  },
  {
    id: 'A3',
    promise: 'lets holds last anew when they are renewed, and gives those that do',
    async check({ open, clock }) {
      const backend = await open()
      const other = await open()
      await send(backend, numbered('jobs', 1, 2))
      const taken = await takeHeld(backend)
      const [first, second] = taken.map(heldOf)
      assert.ok(first && second)
      for (const _time of [1, 2, 3]) {
        await clock.advance(leaseMs - 1)
        const [renewed] = await backend.renewHolds([first], leaseMs)
        assert.deepEqual(renewed?.hold, {
          token: first.hold.token,
          expiresAt: clock.now() + leaseMs,
        })
        await other.cleanUp()
      }

      assert.deepEqual(await takeNumbers(other, 'jobs'), [2])
      assert.deepEqual(await backend.renewHolds([second], leaseMs), [])
      assert.deepEqual(await backend.settle([{ message: first }]), ['settled'])
      assert.deepEqual(await backend.renewHolds([first], leaseMs), [])
    },
  },
  {
    id: 'A4',
    promise: 'stores what comes in the place of a message in the step that ends its hold',
    async check({ open, clock }) {
      const backend = await open({ capacity: 1 })
      const settle = async (next: Omit<OutgoingMessage, 'id' | 'once'>) => {
        await send(backend, numbered('jobs', 1))
        return backend.settle(ending(await takeHeld(backend), next))
      }
      const content = { n: 2 }

      assert.deepEqual(await settle({ channel: 'dead', content, attempts: 3 }), ['settled'])
      const [dead] = await backend.receive(['dead'], { max: 2, waitMs: 0 })
      assert.deepEqual([dead?.content, dead?.attempts], [content, 3])

      await send(backend, numbered('dead', 8))
      assert.deepEqual(await settle({ channel: 'dead', content }), ['full'])
      assert.deepEqual(await takeNumbers(backend, 'dead'), [8])
      await clock.advance(leaseMs)
      await backend.cleanUp()
      const again = await takeHeld(backend)
      assert.deepEqual(numbersOf(again), [1])

      const deliverAt = clock.now() + 5_000
      const next = { channel: 'jobs', content: { n: 3 }, attempts: 4, deliverAt }
      assert.deepEqual(await backend.settle(ending(again, next)), ['settled'])
      await clock.advance(4_999)
      await backend.cleanUp()
      assert.deepEqual(await takeHeld(backend), [])
      await clock.advance(1)
      await backend.cleanUp()
      const [later] = await takeHeld(backend)
      assert.deepEqual([later?.content, later?.attempts], [{ n: 3 }, 4])

      let deep: Content = {}
      for (let depth = 0; depth < 64; depth++) deep = { deep }
      await send(backend, [{ channel: 'deep', content: deep }])
      const [deepest] = await backend.receive(['deep'], { max: 1, waitMs: 0 })
      const letter = { content: deepest?.content ?? {} }
      assert.deepEqual(await settle({ channel: 'dead', content: letter }), ['settled'])
      const taken = await backend.receive(['dead'], { max: 2, waitMs: 0 })
      assert.deepEqual(taken[0]?.content, { content: deep })
      await backend.handBack(taken)
      const onDead = { max: 2, waitMs: 0, hold: { channels: ['dead'], leaseMs } }
      assert.equal((await backend.receive(['dead'], onDead)).length, 1)
    },
  },
  {
    id: 'A5',
    promise: 'ends the hold of what is handed back, unless it had lapsed',
    async check({ open, clock }) {
      const backend = await open()
      const other = await open()
      await send(backend, numbered('jobs', 1, 2))
      const taken = await takeHeld(backend)
      await send(backend, numbered('jobs', 3))

      await backend.handBack([...taken].reverse())

      const again = await takeHeld(other)
      assert.deepEqual(numbersOf(again), [1, 2, 3])
      assert.deepEqual(
        again.map(({ attempts }) => attempts),
        [0, 0, 0],
      )
      assert.deepEqual(await backend.settle(ending(taken)), ['lost', 'lost'])
      await clock.advance(leaseMs)
      await other.cleanUp()
      assert.equal((await takeHeld(backend)).length, 3)
      await other.handBack(again)
      assert.deepEqual(await takeNumbers(backend, 'jobs'), [])
    },
  },
  {
    id: 'A6',
    promise: 'lets no held message expire, and one that is given again live as long as a new one',
    async check({ open, clock }) {
      const backend = await open({ expiryMs: 1_000 })
      await send(backend, numbered('jobs', 1, 2))
      const [first] = await takeHeld(backend, 1)
      await clock.advance(leaseMs - 1)
      await backend.cleanUp()
      assert.deepEqual(await backend.renewHolds([heldOf(first)], leaseMs).then(numberOf), 1)
      await clock.advance(leaseMs)
      await backend.cleanUp()
      await clock.advance(999)
      assert.deepEqual(numbersOf(await takeHeld(backend)), [1])
    },
  },
  {
    id: 'A7',
    promise: 'holds the messages of lines too, whatever becomes of their turns',
    async check({ open, clock }) {
      const backend = await open()
      const other = await open()
      const lines = { channels: ['jobs'], leaseMs: 1_000 }
      const options = { max: 9, waitMs: 0, lines, hold }
      const from = (n: number) => ({ channel: 'jobs', content: { n, reply_channel: 'ada' } })
      await send(backend, [from(1), from(2), from(3)])
      const [first] = await backend.receive(['jobs'], options)
      assert.ok(first?.turn)
      const advance = { channels: ['jobs'], leaseMs: 1_000, hold }
      const { messages } = await backend.advanceLines([first.turn], advance)
      const [second] = messages
      assert.deepEqual(numbersOf(messages), [2])

      assert.deepEqual(await backend.settle(ending([first])), ['settled'])
      await clock.advance(1_000)
      await other.cleanUp()
      const [third] = await other.receive(['jobs'], options)
      assert.equal(third?.content.n, 3)
      assert.ok(second)
      await backend.handBack([second])
      assert.ok(third?.turn)
      const next = await other.advanceLines([third.turn], advance)
      const after =
        next.messages.length > 0 ? next.messages : await other.receive(['jobs'], options)
      assert.deepEqual(numbersOf(after), [2])
      assert.ok(after[0]?.hold)
    },
  },
  {
    id: 'A8',
    promise: 'forgets holds in a flush',
    async check({ open, clock }) {
      const backend = await open()
      await send(backend, numbered('jobs', 1))
      const taken = await takeHeld(backend)

      await backend.flush()

      assert.deepEqual(await backend.settle(ending(taken)), ['lost'])
      await clock.advance(leaseMs)
      await backend.cleanUp()
      assert.deepEqual(await takeNumbers(backend, 'jobs'), [])
    },
  },
]

function numberOf(list: readonly unknown[]): number {
  return list.length
}
