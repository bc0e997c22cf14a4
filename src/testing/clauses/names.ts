import assert from 'node:assert/strict'
import type { ChannelBackend } from '../../backends/channel-backend.ts'
import type { Clause } from '../clause.ts'
import {
  failureCodes,
  members,
  numbered,
  numbersOf,
  rejectsWith,
  send,
  sendToGroup,
  take,
  takeNumbers,
} from './steps.ts'

const goodChannels = [
  'a',
  'websocket.receive',
  'AZaz09._-',
  '..',
  '-',
  '0',
  '__proto__',
  'constructor',
  'x'.repeat(200),
]

const badChannels: readonly unknown[] = [
  '',
  'x'.repeat(201),
  'a b',
  'a\n',
  'a/b',
  'a+b',
  'a*',
  'a?b',
  'é',
  '😀',
  '\u0000',
  '!',
  '!a',
  'a!',
  'a!b!c',
  5,
  null,
  undefined,
  ['a'],
]

const goodGroups = [
  'chat',
  ' ',
  'Räume 部屋 😀',
  'a!b?c*d%e_f',
  "'; DROP TABLE groups; --",
  'line\nbreak\ttab',
  '\u0000\u001f\u007f',
  '__proto__',
  'constructor',
  'x'.repeat(200),
  '😀'.repeat(100),
]

const badGroups: readonly unknown[] = [
  '',
  'x'.repeat(201),
  '\ud83d',
  'half \udc00 pair',
  5,
  null,
  undefined,
]

/** Names that a store with its own idea of equality would take for one another. */
const lookAlikes = ['chat', 'Chat', 'chat.', 'chat_', 'chatx', 'cha-t']
const groupLookAlikes = [
  ...lookAlikes,
  'chat ',
  ' chat',
  'chat%',
  'chät',
  'cha\u0308t',
  'chat\u0000',
]

export const nameClauses: readonly Clause[] = [
  {
    id: 'N1',
    promise: 'takes channel names of 1-200 A-Z a-z 0-9 . _ - and refuses every other by name',
    async check({ open }) {
      const backend = await open()

      for (const channel of goodChannels) {
        await send(backend, numbered(channel, 1))
        assert.deepEqual(
          (await take(backend, channel)).map((message) => message.channel),
          [channel],
        )
      }
      for (const bad of badChannels) {
        const channel = bad as string
        const batch = [...numbered('good', 1), ...numbered(channel, 2), ...numbered('good', 3)]
        assert.deepEqual(failureCodes(await backend.send(batch)), [[1, 'ERR_INVALID_NAME']])
        assert.deepEqual(await takeNumbers(backend, 'good'), [1, 3])
        await rejectsWith(backend.groupAdd([{ group: 'chat', channel }]), 'ERR_INVALID_NAME')
        await rejectsWith(backend.groupDiscard([{ group: 'chat', channel }]), 'ERR_INVALID_NAME')
      }
      assert.deepEqual(await backend.channels(), [])
      assert.deepEqual(await backend.groups(), [])
    },
  },
  {
    id: 'N2',
    promise: 'takes group names of any 1-200 well-formed characters and refuses every other',
    async check({ open }) {
      const backend = await open()

      for (const group of goodGroups) {
        await backend.groupAdd([{ group, channel: 'member' }])
        assert.deepEqual(await backend.groupChannels(group), ['member'])
        assert.deepEqual(await backend.groups(), [{ group, members: 1 }])
        await sendToGroup(backend, group, 1)
        assert.deepEqual(await takeNumbers(backend, 'member'), [1])
        await backend.groupDiscard([{ group, channel: 'member' }])
        assert.deepEqual(await backend.groups(), [])
      }
      for (const bad of badGroups) {
        const group = bad as string
        const membership = [{ group, channel: 'member' }]
        await rejectsWith(backend.groupAdd(membership), 'ERR_INVALID_NAME')
        await rejectsWith(backend.groupDiscard(membership), 'ERR_INVALID_NAME')
        await rejectsWith(backend.groupChannels(group), 'ERR_INVALID_NAME')
        const failures = await backend.groupSend([{ group, content: {} }])
        assert.deepEqual(failureCodes(failures), [[0, 'ERR_INVALID_NAME']])
      }
      assert.deepEqual(await backend.groups(), [])
    },
  },
  {
    id: 'N3',
    promise: 'keeps a group and a channel of one name apart',
    async check({ open }) {
      const backend = await open()
      await backend.groupAdd([{ group: 'chat', channel: 'member' }])

      await send(backend, numbered('chat', 1))
      await sendToGroup(backend, 'chat', 2)

      assert.deepEqual(await takeNumbers(backend, 'member'), [2])
      assert.deepEqual(await takeNumbers(backend, 'chat'), [1])
    },
  },
  {
    id: 'N4',
    promise: 'refuses to receive on a reply channel, an inbox or a name that cannot be sent to',
    async check({ open }) {
      const backend = await open()
      const inbox = await backend.openInbox<string>()
      const reply = inbox.newChannel('client')
      await send(backend, numbered(reply, 1))

      for (const bad of [inbox.name, reply, 'other!', 'other!local', ...badChannels]) {
        await rejectsWith(receiveOn(backend, [bad]), 'ERR_INVALID_NAME')
        await rejectsWith(receiveOn(backend, ['good', bad]), 'ERR_INVALID_NAME')
      }
      assert.deepEqual(numbersOf(await inbox.receive({ max: 10, waitMs: 0 })), [1])
    },
  },
  {
    id: 'N5',
    promise: 'tells names apart by every character, whatever the store thinks of case or accents',
    async check({ open }) {
      const backend = await open()
      const memberOf = (index: number): string => `member.${index}`
      await send(
        backend,
        lookAlikes.flatMap((channel, n) => numbered(channel, n)),
      )
      await backend.groupAdd(
        groupLookAlikes.map((group, index) => ({ group, channel: memberOf(index) })),
      )

      for (const [n, group] of groupLookAlikes.entries()) await sendToGroup(backend, group, n)

      for (const [n, channel] of lookAlikes.entries()) {
        assert.deepEqual(await takeNumbers(backend, channel), [n])
      }
      for (const [n, group] of groupLookAlikes.entries()) {
        assert.deepEqual(await takeNumbers(backend, memberOf(n)), [n])
        assert.deepEqual(await members(backend, group), [memberOf(n)])
      }
      const listed = (await backend.groups()).map(({ group }) => group)
      assert.deepEqual(listed.sort(), [...groupLookAlikes].sort())
    },
  },
]

function receiveOn(backend: ChannelBackend, channels: readonly unknown[]): Promise<unknown> {
  return backend.receive(channels as readonly string[], { max: 1, waitMs: 0 })
}
