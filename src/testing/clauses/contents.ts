import assert from 'node:assert/strict'
import type { ChannelBackend } from '../../backends/channel-backend.ts'
import type { Content } from '../../content.ts'
import type { Clause } from '../clause.ts'
import { drain, failureCodes, numbered, numbersOf, send, take, takeNumbers } from './steps.ts'

const controls = String.fromCharCode(...Array.from({ length: 32 }, (_, code) => code), 127, 0x2028)

const contents: readonly Content[] = [
  {},
  { text: 'plain', empty: '', accents: 'åßçñ 部屋', emoji: '😀👩‍👩‍👧', controls },
  { '': 'empty key', 'a.b': 'dot', '0': 'digit', 'ключ 😀': 'not ASCII', [controls]: 'controls' },
  { lone: 'a\ud800b\udc00', 'key \ud800': 1 },
  { zero: 0, negative: -1, fraction: 0.1, tiny: 5e-324, huge: Number.MAX_VALUE, small: 1e-7 },
  { largest: 2 ** 53 - 1, smallest: -(2 ** 53) + 1, beyond: 2 ** 64 },
  { yes: true, no: false, nothing: null },
  { empty: [], emptyInside: [[], {}, [null]], list: [1, 'two', { three: [3] }] },
  JSON.parse('{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":2}}}') as Content,
  { inside: [JSON.parse('{"__proto__":[1],"toString":"text","hasOwnProperty":null}') as Content] },
  nested(60),
]

const bytesContents: readonly Content[] = [
  { bytes: new Uint8Array() },
  { bytes: Uint8Array.from({ length: 256 }, (_, index) => index) },
  { view: new Uint8Array([1, 2, 3, 4, 5]).subarray(1, 4), beside: null, text: 'text' },
  { list: [new Uint8Array([1]), null, { deep: [new Uint8Array([2, 3])] }], 'a.b': [0] },
  JSON.parse('{"__proto__":null}', (key, value) =>
    key === '__proto__' ? new Uint8Array([4]) : value,
  ) as Content,
  { large: new Uint8Array(100_000).fill(0xff) },
]

class Room {
  readonly name = 'lobby'
}

const cyclic: Record<string, unknown> = {}
cyclic.self = cyclic

/** What cannot travel, and where the error must say it stands. */
const invalidContents: readonly (readonly [content: unknown, path: string])[] = [
  [{ when: new Date(0) }, 'content.when'],
  [{ list: [1, { ratio: Number.NaN }] }, 'content.list[1].ratio'],
  [{ most: Number.POSITIVE_INFINITY }, 'content.most'],
  [{ run: () => {} }, 'content.run'],
  [{ mark: Symbol('mark') }, 'content.mark'],
  [{ big: 1n }, 'content.big'],
  [{ map: new Map() }, 'content.map'],
  [{ room: new Room() }, 'content.room'],
  [{ floats: new Float64Array(1) }, 'content.floats'],
  [{ list: [undefined] }, 'content.list[0]'],
  [cyclic, 'content.self'],
  [[1], 'content'],
  ['text', 'content'],
  [null, 'content'],
  [undefined, 'content'],
  [new Uint8Array(1), 'content'],
  [new Room(), 'content'],
]

export const contentClauses: readonly Clause[] = [
  {
    id: 'C1',
    promise: 'carries any JSON object unchanged, to channels, reply channels and groups',
    check: ({ open }) => checkRoundTrips(open, contents, contents),
  },
  {
    id: 'C4',
    promise: 'reads content before the call returns and gives each receiver its own object',
    async check({ open }) {
      const backend = await open()
      const inbox = await backend.openInbox<string>()
      const reply = inbox.newChannel('client')
      await backend.groupAdd([
        { group: 'chat', channel: reply },
        { group: 'chat', channel: 'member.1' },
        { group: 'chat', channel: 'member.2' },
      ])
      const makeContent = () => ({ list: [1], bytes: new Uint8Array([1]), inner: { text: 'sent' } })
      const content = makeContent()

      const calls = [
        backend.send(['news', 'other', reply].map((channel) => ({ channel, content }))),
        backend.groupSend([{ group: 'chat', content }]),
      ]
      content.list.push(2)
      content.bytes[0] = 2
      content.inner.text = 'changed'
      assert.deepEqual(await Promise.all(calls), [[], []])

      for (const channel of ['news', 'other', 'member.1', 'member.2']) {
        const [message] = await take(backend, channel)
        assert.deepEqual(message?.content, makeContent())
        const received = message?.content as ReturnType<typeof makeContent>
        received.list.push(3)
        received.bytes[0] = 3
        received.inner.text = 'changed by a receiver'
      }
      const deliveries = await drain(inbox)
      assert.equal(deliveries.length, 2)
      for (const delivery of deliveries) assert.deepEqual(delivery.content, makeContent())
    },
  },
  {
    id: 'C12',
    promise: 'rejects content whose encoding is longer than maxContentBytes and stores nothing',
    async check({ open }) {
      const backend = await open({ maxContentBytes: 1_000 })
      const inbox = await backend.openInbox<string>()
      const reply = inbox.newChannel('client')
      await backend.groupAdd([{ group: 'chat', channel: reply }])
      // Encoded: the version byte and {"text":"..."}.
      const fitting: Content = { text: 'x'.repeat(988) }
      const tooLong: Content = { text: 'x'.repeat(989) }
      const tooLargeToo: readonly Content[] = [
        { text: '😀'.repeat(250) },
        { text: '\u0000'.repeat(200) },
        { bytes: new Uint8Array(1_000) },
        { ['k'.repeat(1_000)]: 1 },
      ]

      for (const content of [tooLong, ...tooLargeToo]) {
        const failures = await backend.send([
          ...numbered('news', 1),
          { channel: 'news', content },
          { channel: reply, content },
          ...numbered('news', 2),
        ])
        assert.deepEqual(failureCodes(failures), [
          [1, 'ERR_CONTENT_TOO_LARGE'],
          [2, 'ERR_CONTENT_TOO_LARGE'],
        ])
        assert.deepEqual(await takeNumbers(backend, 'news'), [1, 2])
        const groupFailures = await backend.groupSend([{ group: 'chat', content }])
        assert.deepEqual(failureCodes(groupFailures), [[0, 'ERR_CONTENT_TOO_LARGE']])
      }
      await send(backend, [{ channel: 'news', content: fitting }])

      assert.deepEqual(
        (await take(backend, 'news')).map(({ content }) => content),
        [fitting],
      )
      assert.deepEqual(await drain(inbox), [])
    },
  },
  {
    id: 'C16',
    promise: 'carries Uint8Array values as bytes wherever they stand in content',
    async check({ open }) {
      await checkRoundTrips(open, bytesContents, bytesContents)
      await checkRoundTrips(
        open,
        [{ buffer: Buffer.from('text') }],
        [{ buffer: new Uint8Array(Buffer.from('text')) }],
      )
    },
  },
  {
    id: 'C17',
    promise: 'rejects content that would not arrive as it was sent, naming where, and only that',
    async check({ open }) {
      const backend = await open()
      await backend.groupAdd([{ group: 'chat', channel: 'member' }])

      for (const [invalid, path] of invalidContents) {
        const content = invalid as Content
        const failures = await backend.send([
          ...numbered('news', 1),
          { channel: 'news', content },
          ...numbered('news', 2),
        ])
        assert.deepEqual(failureCodes(failures), [[1, 'ERR_INVALID_CONTENT']])
        const message = failures[0]?.error.message ?? ''
        assert.ok(message.includes(path), `"${message}" does not name ${path}`)
        assert.deepEqual(await takeNumbers(backend, 'news'), [1, 2])
        const groupFailures = await backend.groupSend([{ group: 'chat', content }])
        assert.deepEqual(failureCodes(groupFailures), [[0, 'ERR_INVALID_CONTENT']])
      }
      assert.deepEqual(numbersOf(await take(backend, 'member')), [])
    },
  },
  {
    id: 'C21',
    promise: 'leaves out keys whose value is undefined',
    check: ({ open }) =>
      checkRoundTrips(
        open,
        [{ kept: 1, left: undefined, inner: { left: undefined } }],
        [{ kept: 1, inner: {} }],
      ),
  },
]

/** Sends from one process what another is to receive as `expected`, by every way there is. */
async function checkRoundTrips(
  open: () => Promise<ChannelBackend>,
  sent: readonly Content[],
  expected: readonly Content[],
): Promise<void> {
  const sender = await open()
  const receiver = await open()
  const inbox = await receiver.openInbox<string>()
  const reply = inbox.newChannel('client')
  const memberships = [reply, 'member'].map((channel) => ({ group: 'chat', channel }))
  await sender.groupAdd(memberships)

  await send(
    sender,
    ['news', reply].flatMap((channel) => sent.map((content) => ({ channel, content }))),
  )
  assert.deepEqual(await sender.groupSend(sent.map((content) => ({ group: 'chat', content }))), [])

  for (const channel of ['news', 'member']) {
    const arrived = (await take(receiver, channel)).map(({ content }) => content)
    assert.deepEqual(arrived, expected)
  }
  const delivered = (await drain(inbox)).map(({ content }) => content)
  assert.deepEqual(delivered, [...expected, ...expected])
  assert.ok(!('polluted' in {}), 'Object.prototype was polluted')
  await sender.groupDiscard(memberships)
}

function nested(depth: number): Content {
  let content: Content = { leaf: true }
  for (let level = 0; level < depth; level++) content = { level, inner: content }
  return content
}
