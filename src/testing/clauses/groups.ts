import assert from 'node:assert/strict'
import type { ChannelBackend, Inbox, Membership } from '../../backends/channel-backend.ts'
import type { Clause } from '../clause.ts'
import {
  counted,
  drain,
  failureCodes,
  heard,
  heardBy,
  members,
  nextTurn,
  numbered,
  range,
  send,
  sendToGroup,
  started,
  take,
  takeNumbers,
} from './steps.ts'

function inChat(...channels: readonly string[]): Membership[] {
  return channels.map((channel) => ({ group: 'chat', channel }))
}

export const groupClauses: readonly Clause[] = [
  {
    id: 'G1',
    promise: 'makes one membership of two adds, and the second renews it',
    async check({ open, clock }) {
      const backend = await open({ groupExpiryMs: 1_000 })
      const inbox = await backend.openInbox<string>()
      const reply = inbox.newChannel('ada')
      await backend.groupAdd(inChat(reply, 'member', reply))
      await clock.advance(600)
      await backend.groupAdd(inChat(reply, 'member'))

      assert.deepEqual(await members(backend, 'chat'), ['member', reply].sort())
      await sendToGroup(backend, 'chat', 1)
      assert.deepEqual(await heard(inbox), ['ada:1'])
      assert.deepEqual(await takeNumbers(backend, 'member'), [1])

      await clock.advance(999)
      await sendToGroup(backend, 'chat', 2)
      assert.deepEqual(await heard(inbox), ['ada:2'])
      assert.deepEqual(await takeNumbers(backend, 'member'), [2])
      await clock.advance(1)
      assert.deepEqual(await backend.groupChannels('chat'), [])
    },
  },
  {
    id: 'G2',
    promise: 'reaches with a send who was added before it, and not who was discarded before it',
    async check({ open }) {
      const server = await open()
      const first = await open()
      const second = await open()
      const inbox = await server.openInbox<string>()
      const [ada, bob] = [inbox.newChannel('ada'), inbox.newChannel('bob')]

      await first.groupAdd(inChat(bob))
      await second.groupSend([{ group: 'chat', content: { n: 1 } }])
      await first.groupAdd(inChat(ada, 'member'))
      await sendToGroup(second, 'chat', 2)
      await second.groupDiscard(inChat(ada, 'member'))
      await sendToGroup(first, 'chat', 3)
      await first.groupAdd(inChat(ada, 'member'))
      await sendToGroup(first, 'chat', 4)

      assert.deepEqual(await heard(inbox), [
        ...['bob:1', 'ada:2', 'bob:2'],
        ...['bob:3', 'ada:4', 'bob:4'],
      ])
      assert.deepEqual(await takeNumbers(server, 'member'), [2, 4])
      await first.groupDiscard(inChat(ada))
      await sendToGroup(second, 'chat', 5)
      assert.deepEqual(await heard(inbox), ['bob:5'])
    },
  },
  {
    id: 'G3',
    promise: 'gives each member, whatever its process, each message once and in order',
    async check({ open }) {
      const processes = await Promise.all([open(), open(), open()])
      const inboxes = await Promise.all(processes.map((backend) => backend.openInbox<string>()))
      const owners = inboxes.map((_inbox, index) =>
        range(1, 100).map((client) => `client.${index}.${client}`),
      )
      const [backend] = processes
      await backend.groupAdd(
        inboxes.flatMap((inbox, index) => {
          inbox.newChannel('not a member')
          return inChat(...(owners[index] ?? []).map((owner) => inbox.newChannel(owner)))
        }),
      )
      await backend.groupAdd([...inChat('member.1', 'member.2'), { group: 'other', channel: 'x' }])

      await sendToGroup(processes[1], 'chat', 1, 2)
      await sendToGroup(processes[2], 'chat', 3)

      for (const [index, inbox] of inboxes.entries()) {
        const expected = [1, 2, 3].flatMap((n) =>
          [...(owners[index] ?? [])].sort().map((owner) => `${owner}:${n}`),
        )
        assert.deepEqual(await heard(inbox), expected)
        assert.deepEqual(await heard(inbox), [])
      }
      for (const channel of ['member.1', 'member.2']) {
        assert.deepEqual(await takeNumbers(backend, channel), [1, 2, 3])
      }
      assert.deepEqual(await take(backend, 'x'), [])
    },
  },
  {
    id: 'G4',
    promise: 'passes over the discard of a member that is not there',
    async check({ open }) {
      const backend = await open()
      await backend.groupDiscard(inChat('never.added'))
      await backend.groupDiscard([{ group: 'unknown', channel: 'member' }])
      await backend.groupAdd(inChat('stays', 'goes'))

      await backend.groupDiscard(inChat('goes', 'never.added'))
      await backend.groupDiscard(inChat('goes'))

      assert.deepEqual(await backend.groupChannels('chat'), ['stays'])
      await sendToGroup(backend, 'chat', 1)
      assert.deepEqual(await takeNumbers(backend, 'stays'), [1])
      assert.deepEqual(await takeNumbers(backend, 'goes'), [])
    },
  },
  {
    id: 'G5',
    promise: 'ends a membership that is not renewed, and nothing sent to it extends it',
    async check({ open, clock }) {
      const backend = await open({ groupExpiryMs: 1_000 })
      const other = await open({ groupExpiryMs: 1_000 })
      const inbox = await backend.openInbox<string>()
      const early = inbox.newChannel('early')
      const late = inbox.newChannel('late')
      await other.groupAdd(inChat(early, 'member'))
      await clock.advance(500)
      await other.groupAdd(inChat(late))

      await clock.advance(499)
      await sendToGroup(other, 'chat', 1)
      assert.deepEqual(await heard(inbox), ['early:1', 'late:1'])
      await clock.advance(1)
      assert.deepEqual(await other.groupChannels('chat'), [late])
      await sendToGroup(other, 'chat', 2)
      assert.deepEqual(await heard(inbox), ['late:2'])
      assert.deepEqual(await takeNumbers(other, 'member'), [1])
      await clock.advance(500)
      await sendToGroup(other, 'chat', 3)

      assert.deepEqual(await heard(inbox), [])
      assert.deepEqual(await takeNumbers(other, 'member'), [])
      assert.deepEqual(await backend.groups(), [])
    },
  },
  {
    id: 'G6',
    promise: 'passes over a full member, counts it, and gives the others their copies',
    async check({ open }) {
      const limits = { inboxCapacity: 2, channelCapacity: [['small', 1] as const] }
      const sender = await open(limits)
      const server = await open(limits)
      const full = await server.openInbox<string>()
      const roomy = await server.openInbox<string>()
      const fullReply = full.newChannel('full')
      const members = ['a.member', 'small', fullReply, roomy.newChannel('roomy'), 'z.member']
      await sender.groupAdd(inChat(...members))
      await send(sender, [...numbered(fullReply, 1, 2), ...numbered('small', 1)])

      await sendToGroup(sender, 'chat', 3, 4)

      assert.deepEqual(await takeNumbers(sender, 'a.member'), [3, 4])
      assert.deepEqual(await takeNumbers(sender, 'z.member'), [3, 4])
      assert.deepEqual(await takeNumbers(sender, 'small'), [1])
      assert.deepEqual(await heard(full), ['full:1', 'full:2'])
      assert.deepEqual(await heard(roomy), ['roomy:3', 'roomy:4'])
      assert.equal(counted('dropped.full', sender), 4)
      await sendToGroup(sender, 'chat', 5)
      assert.deepEqual(await heard(full), ['full:5'])
      assert.deepEqual(await takeNumbers(sender, 'small'), [5])
    },
  },
  {
    id: 'G7',
    promise: 'lists exactly the live members, from every process',
    async check({ open }) {
      const first = await open()
      const second = await open()
      const inbox = await first.openInbox<string>()
      const replies = range(1, 20).map((client) => inbox.newChannel(`client.${client}`))
      assert.deepEqual(await second.groupChannels('chat'), [])

      await second.groupAdd([...inChat('member', ...replies), { group: 'other', channel: 'x' }])
      assert.deepEqual(await members(first, 'chat'), ['member', ...replies].sort())
      await first.groupDiscard(inChat(...replies.slice(0, 5), 'member'))

      assert.deepEqual(await members(second, 'chat'), replies.slice(5).sort())
      assert.deepEqual(await members(second, 'other'), ['x'])
    },
  },
  {
    id: 'G8',
    promise: 'costs a stable member no message, whoever else comes and goes meanwhile',
    async check({ open }) {
      const server = await open()
      const otherServer = await open()
      const sender = await open()
      const inbox = await server.openInbox<string>()
      const otherInbox = await otherServer.openInbox<string>()
      await sender.groupAdd(inChat(inbox.newChannel('stable'), 'stable'))
      const total = 150
      let isSending = true
      const come = async (backend: ChannelBackend, home: Inbox<string>, pace: number) => {
        for (let round = 0; isSending; round++) {
          const reply = home.newChannel('passing')
          await backend.groupAdd(inChat(reply, 'passing'))
          for (let turn = 0; turn < (round * pace) % 5; turn++) await nextTurn()
          if (round % 3 === 0) home.endChannel(reply)
          else await backend.groupDiscard(inChat(reply, 'passing'))
          if (round % 7 === 0) await home.renew()
          await nextTurn()
        }
      }
      const heardStable: string[] = []
      const listen = async (home: Inbox<string>) => {
        while (isSending) {
          heardStable.push(...heardBy(await drain(home)).filter((who) => who.startsWith('stable')))
          await nextTurn()
        }
      }

      const passing = started(
        Promise.all([
          come(server, inbox, 1),
          come(otherServer, inbox, 2),
          come(sender, otherInbox, 3),
          listen(inbox),
          listen(otherInbox),
        ]),
      )
      try {
        for (const n of range(1, total)) {
          await sendToGroup(sender, 'chat', n)
          if (n % 10 === 0) await nextTurn()
        }
      } finally {
        isSending = false
      }
      await passing

      heardStable.push(...(await heard(inbox)).filter((who) => who.startsWith('stable')))
      assert.deepEqual(
        heardStable,
        range(1, total).map((n) => `stable:${n}`),
      )
      assert.deepEqual(await takeNumbers(server, 'stable'), range(1, total))
    },
  },
  {
    id: 'G9',
    promise: 'accepts a send to a group without members and stores nothing',
    async check({ open, clock }) {
      const backend = await open({ groupExpiryMs: 1_000 })
      await backend.groupAdd(inChat('member'))
      await backend.groupDiscard(inChat('member'))
      await backend.groupAdd([{ group: 'expired', channel: 'member' }])
      await clock.advance(1_000)

      for (const group of ['unknown', 'chat', 'expired']) await sendToGroup(backend, group, 1)

      assert.deepEqual(await backend.channels(), [])
      assert.deepEqual(await backend.groups(), [])
    },
  },
  {
    id: 'G10',
    promise: 'reports the faulty messages of a batch to groups, and sends the others',
    async check({ open }) {
      const backend = await open({ maxContentBytes: 100 })
      await backend.groupAdd(inChat('member'))

      const failures = await backend.groupSend([
        { group: 'chat', content: { n: 1 } },
        { group: '', content: { n: 2 } },
        { group: 'chat', content: { n: Number.NaN } },
        { group: 'chat', content: { text: 'x'.repeat(100) } },
        { group: 'chat', content: { n: 3 } },
      ])

      assert.deepEqual(failureCodes(failures), [
        [1, 'ERR_INVALID_NAME'],
        [2, 'ERR_INVALID_CONTENT'],
        [3, 'ERR_CONTENT_TOO_LARGE'],
      ])
      assert.deepEqual(await takeNumbers(backend, 'member'), [1, 3])
    },
  },
  {
    id: 'G11',
    promise: 'records nothing of a batch of memberships with a faulty name in it',
    async check({ open }) {
      const backend = await open()
      await backend.groupAdd(inChat('member'))

      await assert.rejects(backend.groupAdd(inChat('other', 'bad name')))
      await assert.rejects(backend.groupDiscard(inChat('member', 'bad name')))

      assert.deepEqual(await backend.groupChannels('chat'), ['member'])
    },
  },
]
