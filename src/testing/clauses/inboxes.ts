import assert from 'node:assert/strict'
import type { Clause } from '../clause.ts'
import {
  counted,
  drain,
  eventually,
  failureCodes,
  hasSettled,
  heard,
  heardBy,
  members,
  nextDeliveries,
  numbered,
  numbersOf,
  range,
  rejectsWith,
  send,
  sendToGroup,
  started,
} from './steps.ts'

const forever = Number.POSITIVE_INFINITY

export const inboxClauses: readonly Clause[] = [
  {
    id: 'R1',
    promise: 'delivers to the inbox that made the reply channel, with owner and channel, in order',
    async check({ open }) {
      const server = await open()
      const otherServer = await open()
      const sender = await open()
      const inbox = await server.openInbox<{ readonly socket: number }>()
      const neighbour = await server.openInbox<string>()
      const distant = await otherServer.openInbox<string>()
      const owners = [{ socket: 1 }, { socket: 2 }] as const
      const [first, second] = [inbox.newChannel(owners[0]), inbox.newChannel(owners[1])]

      await send(sender, [...numbered(first, 1), ...numbered(second, 2), ...numbered(first, 3)])
      await send(server, numbered(second, 4))
      await send(sender, numbered(distant.newChannel('distant'), 5))
      await send(otherServer, numbered(neighbour.newChannel('neighbour'), 6))

      const deliveries = await drain(inbox)
      assert.deepEqual(numbersOf(deliveries), [1, 2, 3, 4])
      for (const [index, delivery] of deliveries.entries()) {
        assert.ok(delivery.group === undefined)
        assert.equal(delivery.channel, index % 2 === 0 ? first : second)
        assert.equal(delivery.owner, owners[index % 2 === 0 ? 0 : 1])
      }
      assert.deepEqual(await heard(distant), ['distant:5'])
      assert.deepEqual(await heard(neighbour), ['neighbour:6'])
    },
  },
  {
    id: 'R2',
    promise: 'makes names of 128 random bits that never come twice',
    async check({ open }) {
      const processes = await Promise.all([open(), open()])
      const names = new Set<string>()
      const channels = new Set<string>()
      for (const backend of processes) {
        for (const _inbox of range(1, 5)) {
          const inbox = await backend.openInbox<string>()
          assert.match(inbox.name, /^reply\.[A-Za-z0-9_-]{22}!$/)
          names.add(inbox.name)
          for (const _channel of range(1, 200)) {
            const channel = inbox.newChannel('client')
            assert.ok(channel.startsWith(inbox.name))
            assert.match(channel.slice(inbox.name.length), /^[A-Za-z0-9_-]{22}$/)
            channels.add(channel)
          }
        }
      }
      assert.equal(names.size, 10)
      assert.equal(new Set([...channels].map((channel) => channel.split('!')[1])).size, 2_000)
    },
  },
  {
    id: 'R3',
    promise: 'keeps direct messages, group messages and changes of membership in one order',
    async check({ open }) {
      const server = await open()
      const sender = await open()
      const inbox = await server.openInbox<string>()
      const reply = inbox.newChannel('ada')
      const membership = [{ group: 'chat', channel: reply }]

      await send(sender, numbered(reply, 1))
      await sender.groupAdd(membership)
      await sendToGroup(sender, 'chat', 2)
      await send(sender, numbered(reply, 3))
      await sendToGroup(sender, 'chat', 4)
      await sender.groupDiscard(membership)
      await sendToGroup(sender, 'chat', 5)
      await send(sender, numbered(reply, 6))

      const told: string[] = []
      for (const _receive of range(1, 12)) {
        const deliveries = await inbox.receive({ max: 1, waitMs: 0 })
        assert.ok(deliveries.length <= 1, 'more than max')
        told.push(...heardBy(deliveries))
      }
      assert.deepEqual(told, ['ada:1', 'ada:2', 'ada:3', 'ada:4', 'ada:6'])
    },
  },
  {
    id: 'R4',
    promise: 'drops and counts messages to an ended channel, and ends its memberships everywhere',
    async check({ open }) {
      const server = await open()
      const sender = await open()
      const inbox = await server.openInbox<string>()
      const [ada, bob] = [inbox.newChannel('ada'), inbox.newChannel('bob')]
      const groups = ['chat', 'news']
      await sender.groupAdd(
        groups.flatMap((group) => [ada, bob].map((channel) => ({ group, channel }))),
      )
      await drain(inbox)
      assert.equal(inbox.membershipCount, 4)
      await send(sender, numbered(ada, 1))

      inbox.endChannel(ada)
      inbox.endChannel(ada)
      await send(sender, [...numbered(ada, 2), ...numbered(bob, 3)])

      assert.deepEqual(await heard(inbox), ['bob:3'])
      assert.equal(counted('dropped.gone', server, sender), 2)
      assert.equal(inbox.membershipCount, 2)
      await eventually(async () => {
        for (const group of groups) assert.deepEqual(await sender.groupChannels(group), [bob])
      })
      await sendToGroup(sender, 'chat', 4)
      assert.deepEqual(await heard(inbox), ['bob:4'])
    },
  },
  {
    id: 'R5',
    promise: 'does not keep a membership that is added to a channel after its end',
    async check({ open }) {
      const server = await open()
      const sender = await open()
      const inbox = await server.openInbox<string>()
      const [ada, eve] = [inbox.newChannel('ada'), inbox.newChannel('eve')]
      await sender.groupAdd([{ group: 'chat', channel: ada }])
      inbox.endChannel(ada)

      await sender.groupAdd([ada, eve].map((channel) => ({ group: 'chat', channel })))
      inbox.endChannel(eve)
      await sendToGroup(sender, 'chat', 1)

      assert.deepEqual(await heard(inbox), [])
      assert.equal(inbox.membershipCount, 0)
      await eventually(async () => assert.deepEqual(await sender.groupChannels('chat'), []))
      assert.deepEqual(await sender.groups(), [])
    },
  },
  {
    id: 'R6',
    promise: 'renews with renew() the memberships of its own channels and no others',
    async check({ open, clock }) {
      const server = await open({ groupExpiryMs: 1_000 })
      const sender = await open({ groupExpiryMs: 1_000 })
      const inbox = await server.openInbox<string>()
      const other = await server.openInbox<string>()
      const reply = inbox.newChannel('ada')
      const otherReply = other.newChannel('bob')
      await sender.groupAdd(
        [reply, otherReply, 'member'].map((channel) => ({ group: 'chat', channel })),
      )
      await Promise.all([drain(inbox), drain(other)])

      for (const _renewal of range(1, 5)) {
        await clock.advance(600)
        await inbox.renew()
      }

      assert.deepEqual(await sender.groupChannels('chat'), [reply])
      await clock.advance(999)
      await sendToGroup(sender, 'chat', 1)
      assert.deepEqual(await heard(inbox), ['ada:1'])
      assert.deepEqual(await heard(other), [])
      await clock.advance(1)
      await inbox.renew()
      assert.deepEqual(await sender.groupChannels('chat'), [])
      assert.equal(inbox.membershipCount, 0)
    },
  },
  {
    id: 'R7',
    promise: 'records again with renew() the memberships that the backend has lost',
    async check({ open }) {
      const server = await open()
      const sender = await open()
      const inbox = await server.openInbox<string>()
      const [ada, bob] = [inbox.newChannel('ada'), inbox.newChannel('bob')]
      await sender.groupAdd([
        { group: 'chat', channel: ada },
        { group: 'chat', channel: bob },
        { group: 'news', channel: bob },
      ])
      await drain(inbox)
      await sender.flush()
      assert.deepEqual(await sender.groups(), [])

      await inbox.renew()

      assert.deepEqual(await members(sender, 'chat'), [ada, bob].sort())
      assert.deepEqual(await members(sender, 'news'), [bob])
      await sendToGroup(sender, 'chat', 1)
      assert.deepEqual(await heard(inbox), ['ada:1', 'bob:1'])
    },
  },
  {
    id: 'R8',
    promise: 'does not revive with renew() a membership discarded before, however late it hears',
    async check({ open, clock }) {
      const server = await open({ groupExpiryMs: 1_000 })
      const sender = await open({ groupExpiryMs: 1_000 })
      const inbox = await server.openInbox<string>()
      const [ada, bob] = [inbox.newChannel('ada'), inbox.newChannel('bob')]
      await sender.groupAdd([ada, bob].map((channel) => ({ group: 'chat', channel })))
      await drain(inbox)

      await sender.groupDiscard([{ group: 'chat', channel: ada }])
      await inbox.renew()
      assert.deepEqual(await sender.groupChannels('chat'), [bob])
      await sendToGroup(sender, 'chat', 1)
      assert.deepEqual(await heard(inbox), ['bob:1'])
      for (const _renewal of range(1, 3)) {
        await clock.advance(600)
        await inbox.renew()
      }

      assert.deepEqual(await sender.groupChannels('chat'), [bob])
    },
  },
  {
    id: 'R9',
    promise: 'ends its channels and its waiting receive when the inbox closes',
    async check({ open, clock }) {
      const server = await open({ expiryMs: 1_000 })
      const sender = await open({ expiryMs: 1_000 })
      const inbox = await server.openInbox<string>()
      const staying = await server.openInbox<string>()
      const reply = inbox.newChannel('ada')
      const stayingReply = staying.newChannel('bob')
      await sender.groupAdd([reply, stayingReply].map((channel) => ({ group: 'chat', channel })))
      await drain(inbox)
      const waiting = started(inbox.receive({ max: 10, waitMs: forever }))
      await clock.advance(10)

      await inbox.close()
      await inbox.close()

      await rejectsWith(waiting, 'ERR_BACKEND_CLOSED')
      await rejectsWith(drain(inbox), 'ERR_BACKEND_CLOSED')
      assert.deepEqual(await sender.groupChannels('chat'), [stayingReply])
      assert.equal(inbox.membershipCount, 0)
      await send(sender, numbered(reply, 1))
      await sendToGroup(sender, 'chat', 2)
      assert.deepEqual(await heard(staying), ['bob:2'])
      await clock.advance(1_000)
      assert.deepEqual(await sender.channels(), [])
    },
  },
  {
    id: 'R10',
    promise: 'holds at most inboxCapacity messages; changes of membership always find room',
    async check({ open, clock }) {
      const server = await open({ inboxCapacity: 3, capacity: 1, expiryMs: 1_000 })
      const sender = await open({ inboxCapacity: 3, capacity: 1, expiryMs: 1_000 })
      const inbox = await server.openInbox<string>()
      const reply = inbox.newChannel('ada')
      const groups = range(1, 5).map((n) => `room.${n}`)
      await sender.groupAdd(groups.map((group) => ({ group, channel: reply })))

      assert.deepEqual(failureCodes(await sender.send(numbered(reply, 1, 2, 3, 4, 5))), [
        [3, 'ERR_CHANNEL_FULL'],
        [4, 'ERR_CHANNEL_FULL'],
      ])
      await sender.groupAdd([{ group: 'chat', channel: reply }])
      assert.deepEqual(await heard(inbox), ['ada:1', 'ada:2', 'ada:3'])
      assert.equal(inbox.membershipCount, 6)
      await sendToGroup(sender, 'chat', 6)
      assert.deepEqual(await heard(inbox), ['ada:6'])

      await send(sender, numbered(reply, 1, 2, 3))
      await clock.advance(1_000)
      await send(sender, numbered(reply, 4, 5, 6))
      assert.deepEqual(await heard(inbox), ['ada:4', 'ada:5', 'ada:6'])
    },
  },
  {
    id: 'R11',
    promise: 'never delivers an expired message, yet carries out every change of membership',
    async check({ open, clock }) {
      const server = await open({ expiryMs: 1_000 })
      const sender = await open({ expiryMs: 1_000 })
      const inbox = await server.openInbox<string>()
      const [ada, bob] = [inbox.newChannel('ada'), inbox.newChannel('bob')]
      await sender.groupAdd([ada, bob].map((channel) => ({ group: 'chat', channel })))
      await sender.groupDiscard([{ group: 'chat', channel: bob }])
      await send(sender, numbered(ada, 1))
      await sendToGroup(sender, 'chat', 2)
      await clock.advance(400)
      await send(sender, numbered(ada, 3))
      await sendToGroup(sender, 'chat', 4)
      await clock.advance(600)
      await sender.cleanUp()

      assert.deepEqual(await heard(inbox), ['ada:3', 'ada:4'])
      await sendToGroup(sender, 'chat', 5)
      assert.deepEqual(await heard(inbox), ['ada:5'])
      assert.equal(counted('dropped.expired', server, sender), 2)
    },
  },
  {
    id: 'R12',
    promise: 'wakes for direct and group messages; an aborted wait loses nothing',
    async check({ open, clock }) {
      const server = await open()
      const sender = await open()
      const inbox = await server.openInbox<string>()
      const reply = inbox.newChannel('ada')
      await sender.groupAdd([{ group: 'chat', channel: reply }])
      await drain(inbox)

      for (const n of range(1, 3)) {
        const waiting = started(nextDeliveries(inbox))
        await clock.advance(10)
        assert.equal(await hasSettled(waiting), false)
        if (n === 2) await sendToGroup(sender, 'chat', n)
        else await send(sender, numbered(reply, n))
        assert.deepEqual(heardBy(await waiting), [`ada:${n}`])
      }

      const reason = new Error('the server stops')
      for (const turns of range(0, 30)) {
        const controller = new AbortController()
        const waiting = started(nextDeliveries(inbox, controller.signal))
        const sending = send(sender, numbered(reply, 1, 2))
        for (let turn = 0; turn < turns; turn++) await Promise.resolve()
        controller.abort(reason)
        const [outcome] = await Promise.allSettled([waiting, sending])
        await sending
        if (outcome.status === 'rejected') assert.equal(outcome.reason, reason)
        const told = outcome.status === 'fulfilled' ? heardBy(outcome.value) : []
        told.push(...(await heard(inbox)))
        assert.deepEqual(told, ['ada:1', 'ada:2'], `aborted after ${turns} microtasks`)
      }
    },
  },
  {
    id: 'R13',
    promise: 'rejects a second receive while one is under way, and leaves the first alone',
    async check({ open, clock }) {
      const backend = await open()
      const inbox = await backend.openInbox<string>()
      const reply = inbox.newChannel('ada')
      const waiting = started(inbox.receive({ max: 10, waitMs: forever }))
      await clock.advance(10)

      await rejectsWith(drain(inbox), 'ERR_INVALID_ARGUMENT')

      await send(backend, numbered(reply, 1))
      assert.deepEqual(heardBy(await waiting), ['ada:1'])
    },
  },
  {
    id: 'R14',
    promise:
      "keeps a membership as long as its channel with renewal 'auto', whatever the clock does",
    async check({ open, clock }) {
      const server = await open({ groupExpiryMs: 1_000 })
      const sender = await open({ groupExpiryMs: 1_000 })
      const inbox = await server.openInbox<string>({ renewal: 'auto' })
      const [ada, bob] = [inbox.newChannel('ada'), inbox.newChannel('bob')]
      await sender.groupAdd([
        { group: 'chat', channel: ada },
        { group: 'chat', channel: bob },
      ])
      await sendToGroup(sender, 'chat', 1)
      await clock.advance(10_000)
      await drain(inbox)
      assert.equal(inbox.membershipCount, 2)

      inbox.endChannel(bob)
      await inbox.renew()

      await sendToGroup(sender, 'chat', 2)
      assert.deepEqual(await heard(inbox), ['ada:2'])
      await clock.advance(10_000)
      await inbox.renew()
      assert.deepEqual(await members(sender, 'chat'), [ada])
      await sendToGroup(sender, 'chat', 3)
      assert.deepEqual(await heard(inbox), ['ada:3'])
    },
  },
]
