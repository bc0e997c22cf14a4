import assert from 'node:assert/strict'
import type { ChannelBackend } from '../../backends/channel-backend.ts'
import type { Clause } from '../clause.ts'
import {
  drain,
  eventually,
  heard,
  heardBy,
  members,
  nextDeliveries,
  numbered,
  numbersOf,
  processInfo,
  range,
  rejectsWith,
  send,
  sendToGroup,
  started,
  takeNumbers,
} from './steps.ts'

const forever = Number.POSITIVE_INFINITY

/** Every method that asks the store, by name. */
const calls: Readonly<Record<string, (backend: ChannelBackend) => Promise<unknown>>> = {
  open: (backend) => backend.open(),
  send: (backend) => backend.send(numbered('news', 1)),
  receive: (backend) => backend.receive(['news'], { max: 1, waitMs: 0 }),
  handBack: (backend) =>
    backend.handBack([
      { id: 1, channel: 'news', content: {}, expiresAt: Date.UTC(2099, 0), attempts: 0 },
    ]),
  cancel: (backend) => backend.cancel('news', ['id']),
  settle: (backend) =>
    backend.settle([{ message: { channel: 'news', hold: { token: 'none', expiresAt: 0 } } }]),
  renewHolds: (backend) =>
    backend.renewHolds([{ channel: 'news', hold: { token: 'none', expiresAt: 0 } }], 1_000),
  openInbox: (backend) => backend.openInbox<string>(),
  groupAdd: (backend) => backend.groupAdd([{ group: 'chat', channel: 'member' }]),
  groupDiscard: (backend) => backend.groupDiscard([{ group: 'chat', channel: 'member' }]),
  groupSend: (backend) => backend.groupSend([{ group: 'chat', content: {} }]),
  groupChannels: (backend) => backend.groupChannels('chat'),
  groups: (backend) => backend.groups(),
  channels: (backend) => backend.channels(),
  announce: (backend) => backend.announce(processInfo('worker'), 1_000),
  withdraw: (backend) => backend.withdraw('worker'),
  processes: (backend) => backend.processes(),
  cleanUp: (backend) => backend.cleanUp(),
  flush: (backend) => backend.flush(),
}

export const lifecycleClauses: readonly Clause[] = [
  {
    id: 'X1',
    promise: 'removes with flush every message, group and announcement of this store only',
    async check({ open, openElsewhere }) {
      const backend = await open()
      const other = await open()
      const elsewhere = await openElsewhere()
      const inbox = await other.openInbox<string>()
      const reply = inbox.newChannel('ada')
      for (const each of [backend, elsewhere]) {
        await send(each, numbered('news', 1))
        await each.groupAdd([{ group: 'chat', channel: 'member' }])
        await each.announce(processInfo('worker'), 1_000)
      }
      await send(backend, numbered(reply, 1))
      const waiting = started(other.receive(['later'], { max: 1, waitMs: forever }))

      await backend.flush()

      assert.deepEqual(await backend.channels(), [])
      assert.deepEqual(await backend.groups(), [])
      assert.deepEqual(await backend.processes(), [])
      assert.deepEqual(await takeNumbers(other, 'news'), [])
      assert.deepEqual(await drain(inbox), [])
      await send(backend, [...numbered('later', 2), ...numbered(reply, 3)])
      assert.deepEqual(numbersOf(await waiting), [2])
      assert.deepEqual(await heard(inbox), ['ada:3'])
      assert.deepEqual(await takeNumbers(elsewhere, 'news'), [1])
      assert.deepEqual(await elsewhere.groups(), [{ group: 'chat', members: 1 }])
      assert.equal((await elsewhere.processes()).length, 1)
    },
  },
  {
    id: 'X2',
    promise: 'settles waits with ERR_BACKEND_CLOSED when it closes, losing no message',
    async check({ open, clock }) {
      const other = await open()
      const backend = await open()
      const inbox = await backend.openInbox<string>()
      const waits: Promise<unknown>[] = [
        backend.receive(['news'], { max: 1, waitMs: forever }),
        backend.receive(['other'], { max: 1, waitMs: 1_000 }),
        inbox.receive({ max: 1, waitMs: forever }),
      ].map((waiting: Promise<unknown>) => started(waiting))
      await clock.advance(10)

      await backend.close()

      for (const waiting of waits) await rejectsWith(waiting, 'ERR_BACKEND_CLOSED')
      await send(other, numbered('news', 1))
      assert.deepEqual(await takeNumbers(other, 'news'), [1])

      for (const turns of range(0, 15)) {
        const closing = await open()
        const waiting = started(closing.receive(['news'], { max: 10, waitMs: forever }))
        const sending = send(other, numbered('news', 1, 2))
        for (let turn = 0; turn < turns; turn++) await Promise.resolve()
        const closed = closing.close()
        const [outcome] = await Promise.allSettled([waiting, sending, closed])
        await Promise.all([sending, closed])
        const received = outcome.status === 'fulfilled' ? numbersOf(outcome.value) : []
        received.push(...(await takeNumbers(other, 'news')))
        assert.deepEqual(received, [1, 2], `closed after ${turns} microtasks`)
      }
    },
  },
  {
    id: 'X3',
    promise: 'rejects every call after close with ERR_BACKEND_CLOSED; closing again does nothing',
    async check({ open }) {
      const other = await open()
      const backend = await open()
      const inbox = await backend.openInbox<string>()
      await send(backend, numbered('news', 1))

      await Promise.all([backend.close(), backend.close()])
      await backend.close()

      for (const [name, call] of Object.entries(calls)) {
        await assert.rejects(call(backend), { code: 'ERR_BACKEND_CLOSED' }, name)
      }
      await rejectsWith(drain(inbox), 'ERR_BACKEND_CLOSED')
      await rejectsWith(inbox.renew(), 'ERR_BACKEND_CLOSED')
      assert.deepEqual(await takeNumbers(other, 'news'), [1])
    },
  },
  {
    id: 'X4',
    promise: 'rejects with ERR_BACKEND_UNAVAILABLE while its service is away, then goes on',
    async check({ open, store }) {
      const sender = await open()
      const server = await open()
      const inbox = await server.openInbox<string>()
      const reply = inbox.newChannel('ada')
      await sender.groupAdd([{ group: 'chat', channel: reply }])
      await drain(inbox)

      // A store without a connection to cut has nothing to be away: it must simply go on.
      const mend = await store.breakConnection?.()
      if (mend) {
        for (const [name, call] of Object.entries(calls)) {
          if (name === 'open') continue
          await assert.rejects(call(sender), unavailable, name)
        }
        await mend()
      }

      await eventually(async () => {
        for (const call of [() => sender.groups(), () => inbox.renew()]) {
          const [outcome] = await Promise.allSettled([call()])
          assert.equal(outcome.status, 'fulfilled', 'the service is back, the backend is not')
        }
      })
      await send(sender, [...numbered('work', 1), ...numbered(reply, 2)])
      await sendToGroup(sender, 'chat', 3)
      assert.deepEqual(await takeNumbers(server, 'work'), [1])
      assert.deepEqual(await heard(inbox), ['ada:2', 'ada:3'])
    },
  },
  {
    id: 'C22',
    promise: 'stores a marked batch once, which failed for an outage and was sent again',
    async check({ open, store }) {
      const backend = await open()
      const mark = { sender: 'sender', number: 1 }
      const batch = numbered('news', 1, 2)
      await backend.open()

      const mend = await store.breakConnection?.()
      if (mend) {
        for (const _try of range(1, 3)) {
          await assert.rejects(backend.send(batch, { mark }), unavailable)
        }
        await mend()
      }
      await eventually(async () => {
        const [outcome] = await Promise.allSettled([backend.send(batch, { mark })])
        assert.equal(outcome.status, 'fulfilled', 'the service is back, the backend is not')
      })
      await send(backend, numbered('news', 3))

      assert.deepEqual(await takeNumbers(backend, 'news'), [1, 2, 3])
    },
  },
  {
    id: 'X5',
    promise: 'keeps nothing scheduled after close',
    async check({ open, clock }) {
      const backend = await open({ expiryMs: 1_000 })
      const other = await open({ expiryMs: 1_000 })
      const inbox = await backend.openInbox<string>()
      await send(backend, [...numbered('news', 1), ...numbered(inbox.newChannel('ada'), 1)])
      await backend.groupAdd([{ group: 'chat', channel: 'member' }])
      await send(other, numbered('news', 2))
      const waits = [
        backend.receive(['quiet'], { max: 1, waitMs: 5_000 }),
        other.receive(['quiet'], { max: 1, waitMs: 5_000 }),
      ].map((waiting) => started(waiting))
      await clock.advance(2_500)

      await Promise.all([backend.close(), other.close()])

      await Promise.allSettled(waits)
      assert.equal(clock.scheduledCount, 0)
    },
  },
  {
    id: 'X6',
    promise: 'opens on first use or by open(), again as often as asked',
    async check({ open }) {
      const first = await open()
      const second = await open()
      await first.open()
      await Promise.all([first.open(), first.open()])
      await send(first, numbered('news', 1))

      assert.deepEqual(await takeNumbers(second, 'news'), [1])
      await second.open()
      await send(second, numbered('news', 2))
      assert.deepEqual(await takeNumbers(first, 'news'), [2])
    },
  },
  {
    id: 'X7',
    promise: 'has nothing to do with another store',
    async check({ open, openElsewhere }) {
      const here = await open()
      const there = await openElsewhere()
      await send(here, numbered('news', 1))
      await here.groupAdd([{ group: 'chat', channel: 'member' }])
      await here.announce(processInfo('worker'), 1_000)
      const inbox = await here.openInbox<string>()
      await there.send(numbered(inbox.newChannel('ada'), 1))
      await sendToGroup(there, 'chat', 1)

      assert.deepEqual(await takeNumbers(there, 'news'), [])
      assert.deepEqual(await there.groupChannels('chat'), [])
      assert.deepEqual(await there.groups(), [])
      assert.deepEqual(await there.processes(), [])
      assert.deepEqual(await drain(inbox), [])
      assert.deepEqual(await takeNumbers(here, 'member'), [])
      assert.deepEqual(await takeNumbers(here, 'news'), [1])
    },
  },
  {
    id: 'X8',
    promise: 'takes its inboxes with it when it closes, and leaves its messages to the others',
    async check({ open }) {
      const staying = await open()
      const leaving = await open()
      const inbox = await leaving.openInbox<string>()
      const stayingInbox = await staying.openInbox<string>()
      const stayingReply = stayingInbox.newChannel('bob')
      await leaving.groupAdd(
        [inbox.newChannel('ada'), stayingReply, 'member'].map((channel) => ({
          group: 'chat',
          channel,
        })),
      )
      await send(leaving, [...numbered('news', 1, 2), ...numbered(stayingReply, 3)])

      await leaving.close()

      assert.deepEqual(await members(staying, 'chat'), ['member', stayingReply].sort())
      assert.deepEqual(await takeNumbers(staying, 'news'), [1, 2])
      assert.deepEqual(await heard(stayingInbox), ['bob:3'])
      const waiting = started(nextDeliveries(stayingInbox))
      await sendToGroup(staying, 'chat', 4)
      assert.deepEqual(heardBy(await waiting), ['bob:4'])
    },
  },
]

function unavailable(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ERR_BACKEND_UNAVAILABLE'
}
