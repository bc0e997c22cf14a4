import assert from 'node:assert/strict'
import type { ChannelBackend, ChannelInfo } from '../../backends/channel-backend.ts'
import type { Clause } from '../clause.ts'
import { counted, drain, numbered, range, send, sendToGroup, take } from './steps.ts'

async function channelInfos(backend: ChannelBackend): Promise<ChannelInfo[]> {
  return [...(await backend.channels())].sort((a, b) => (a.channel < b.channel ? -1 : 1))
}

/** Counters, listings, limits and capabilities. */
export const figureClauses: readonly Clause[] = [
  {
    id: 'S1',
    promise: 'counts what each process sent and received, and not what was rejected',
    async check({ open }) {
      const sender = await open({ capacity: 5 })
      const receiver = await open({ capacity: 5 })
      await sender.send([
        ...numbered('news', ...range(1, 8)),
        ...numbered('bad name', 1),
        { channel: 'other', content: { n: Number.NaN } },
        ...numbered('other', 1),
      ])

      await take(receiver, 'news', 2)
      await take(receiver, 'news')
      await take(receiver, 'news')

      assert.equal(counted('sent', sender), 6)
      assert.equal(counted('received', sender), 0)
      assert.equal(counted('sent', receiver), 0)
      assert.equal(counted('received', receiver), 5)
    },
  },
  {
    id: 'S2',
    promise: 'counts every dropped message once, by its reason',
    async check({ open, clock }) {
      const limits = { capacity: 2, inboxCapacity: 2, expiryMs: 1_000 }
      const sender = await open(limits)
      const receiver = await open(limits)
      const inbox = await receiver.openInbox<string>()
      const [ada, gone] = [inbox.newChannel('ada'), inbox.newChannel('gone')]
      inbox.endChannel(gone)

      await sender.send([...numbered('news', 1, 2, 3, 4), ...numbered(ada, 1, 2, 3)])
      assert.equal(counted('dropped.full', sender), 3)
      await clock.advance(1_000)
      await take(receiver, 'news')
      await drain(inbox)
      await receiver.cleanUp()
      await sender.cleanUp()
      assert.equal(counted('dropped.expired', sender, receiver), 4)
      await send(sender, numbered(gone, 1, 2))
      await drain(inbox)

      assert.equal(counted('dropped.gone', sender, receiver), 2)
      assert.equal(counted('dropped.full', sender, receiver), 3)
      assert.equal(counted('dropped.expired', sender, receiver), 4)
    },
  },
  {
    id: 'S3',
    promise: 'lists the channels and inboxes with live messages, how many, and the oldest expiry',
    async check({ open, clock }) {
      const sender = await open({ expiryMs: 1_000 })
      const other = await open({ expiryMs: 1_000 })
      const inbox = await other.openInbox<string>()
      const reply = inbox.newChannel('ada')
      const startedAt = clock.now()
      await sender.groupAdd([{ group: 'chat', channel: reply }])
      assert.deepEqual(await other.channels(), [])
      await send(sender, [...numbered('news', 1, 2), ...numbered('other', 1)])
      await clock.advance(400)
      await send(sender, [...numbered('news', 3), ...numbered(reply, 1)])
      await sendToGroup(sender, 'chat', 2)

      const expectedInbox = {
        channel: inbox.name,
        waiting: 2,
        oldestExpiresAt: startedAt + 1_400,
      }
      assert.deepEqual(await channelInfos(other), [
        { channel: 'news', waiting: 3, oldestExpiresAt: startedAt + 1_000 },
        { channel: 'other', waiting: 1, oldestExpiresAt: startedAt + 1_000 },
        expectedInbox,
      ])
      await clock.advance(600)
      assert.deepEqual(await channelInfos(other), [
        { channel: 'news', waiting: 1, oldestExpiresAt: startedAt + 1_400 },
        expectedInbox,
      ])
      await take(other, 'news')
      await drain(inbox)
      assert.deepEqual(await sender.channels(), [])
    },
  },
  {
    id: 'S4',
    promise: 'lists the groups with live members, and how many',
    async check({ open, clock }) {
      const first = await open({ groupExpiryMs: 1_000 })
      const second = await open({ groupExpiryMs: 1_000 })
      const inbox = await first.openInbox<string>()
      assert.deepEqual(await first.groups(), [])
      await first.groupAdd([
        { group: 'chat', channel: 'member' },
        { group: 'chat', channel: inbox.newChannel('ada') },
        { group: 'short', channel: 'member' },
      ])
      await clock.advance(600)
      await second.groupAdd([
        { group: 'chat', channel: 'other' },
        { group: 'left', channel: 'member' },
      ])
      await second.groupDiscard([{ group: 'left', channel: 'member' }])

      const listed = [...(await second.groups())].sort((a, b) => (a.group < b.group ? -1 : 1))
      assert.deepEqual(listed, [
        { group: 'chat', members: 3 },
        { group: 'short', members: 1 },
      ])
      await clock.advance(400)
      assert.deepEqual(await first.groups(), [{ group: 'chat', members: 1 }])
    },
  },
  {
    id: 'S5',
    promise: 'declares its capabilities and limits, frozen and the same on every open',
    async check({ open, clock }) {
      const first = await open()
      const second = await open({ capacity: 7, expiryMs: 1_234 })

      assert.ok(Object.isFrozen(first.supports))
      assert.ok(Object.isFrozen(first.limits))
      assert.deepEqual(first.supports, second.supports)
      assert.equal(typeof first.supports.multipleProcesses, 'boolean')
      const { capacityOf, ...limits } = first.limits
      assert.deepEqual(limits, {
        capacity: 1_000,
        inboxCapacity: 10_000,
        lineCapacity: 100,
        delayedCapacity: 10_000,
        expiryMs: 60_000,
        groupExpiryMs: 60_000,
        maxContentBytes: 1_048_576,
        clock,
      })
      assert.equal(capacityOf('news'), 1_000)
      assert.equal(second.limits.capacityOf('news'), 7)
      assert.equal(second.limits.expiryMs, 1_234)
    },
  },
]
