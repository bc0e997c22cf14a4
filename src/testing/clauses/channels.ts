import assert from 'node:assert/strict'
import type { ChannelBackend } from '../../backends/channel-backend.ts'
import type { Clause } from '../clause.ts'
import {
  advanceUntilSettled,
  eventually,
  failureCodes,
  hasSettled,
  numbered,
  numbersOf,
  range,
  rejectsWith,
  send,
  started,
  take,
  takeNumbers,
} from './steps.ts'

const forever = Number.POSITIVE_INFINITY

export const channelClauses: readonly Clause[] = [
  {
    id: 'C2',
    promise: 'delivers the messages of one channel in the order in which they were sent',
    async check({ open }) {
      const sender = await open()
      const receiver = await open()

      await send(sender, [...numbered('news', 1, 2, 3), ...numbered('other', 100)])
      await send(sender, numbered('news', 4))
      await send(sender, [...numbered('other', 101), ...numbered('news', ...range(5, 50))])

      assert.deepEqual(await takeNumbers(receiver, 'news', 7), range(1, 7))
      await send(sender, numbered('news', ...range(51, 60)))
      assert.deepEqual(await takeNumbers(receiver, 'news'), range(8, 60))
      assert.deepEqual(await takeNumbers(receiver, 'other'), [100, 101])
    },
  },
  {
    id: 'C3',
    promise: 'gives each message to exactly one of many receivers in many processes',
    async check({ open }) {
      const sender = await open()
      const receivers = await Promise.all(Array.from({ length: 4 }, () => open()))
      const controller = new AbortController()
      const received: unknown[] = []
      const total = 300
      const receiveAll = async (backend: ChannelBackend, max: number): Promise<void> => {
        const options = { max, waitMs: forever, signal: controller.signal }
        while (received.length < total) {
          received.push(...numbersOf(await backend.receive(['news', 'other'], options)))
        }
        controller.abort()
      }

      const running = receivers.flatMap((backend) => [
        started(receiveAll(backend, 1)),
        started(receiveAll(backend, 7)),
      ])
      for (let n = 0; n < total; n += 6) {
        await send(sender, [
          ...numbered('news', n, n + 1, n + 2),
          ...numbered('other', n + 3, n + 4, n + 5),
        ])
      }
      await Promise.allSettled(running)

      const byNumber = (a: unknown, b: unknown): number => Number(a) - Number(b)
      assert.deepEqual(received.sort(byNumber), range(0, total - 1))
      assert.deepEqual(await sender.channels(), [])
    },
  },
  {
    id: 'C5',
    promise: 'divides a batch between channels and starves none, however busy another is',
    async check({ open }) {
      const backend = await open()
      const busy = ['busy.1', 'busy.2', 'busy.3', 'busy.4']
      await send(
        backend,
        busy.flatMap((channel) => numbered(channel, ...range(1, 50))),
      )

      const batch = await backend.receive(busy, { max: 40, waitMs: 0 })
      assert.equal(batch.length, 40)
      for (const channel of busy) {
        const numbers = numbersOf(batch.filter((message) => message.channel === channel))
        assert.ok(numbers.length >= 5, `${channel} has ${numbers.length} of 40 places`)
        assert.deepEqual(numbers, range(1, numbers.length))
      }

      for (const channels of [
        ['quiet', ...busy],
        [...busy, 'quiet'],
      ]) {
        await send(backend, numbered('quiet', 1))
        await untilServed(backend, channels, 'quiet')
      }
    },
  },
  {
    id: 'C6',
    promise: 'gives an empty list when nothing waits: at once, or after the wait',
    async check({ open, clock }) {
      const backend = await open()
      assert.deepEqual(await backend.receive(['news'], { max: 10, waitMs: 0 }), [])

      const startedAt = clock.now()
      const waiting = started(backend.receive(['news', 'other'], { max: 10, waitMs: 1_000 }))
      await clock.advance(999)
      assert.equal(await hasSettled(waiting), false)

      assert.deepEqual(await advanceUntilSettled(clock, waiting, 1), [])
      assert.ok(clock.now() - startedAt <= 2_000, 'the wait took twice its time')
      await send(backend, numbered('news', 1))
      assert.deepEqual(await takeNumbers(backend, 'news'), [1])
    },
  },
  {
    id: 'C7',
    promise: 'wakes a waiting receiver for a message sent by another process',
    async check({ open, clock }) {
      const sender = await open()
      const receiver = await open()

      for (const n of range(1, 5)) {
        const waiting = started(receiver.receive(['quiet', 'news'], { max: 10, waitMs: forever }))
        await clock.advance(10)
        assert.equal(await hasSettled(waiting), false)
        await send(sender, numbered('news', n))
        assert.deepEqual(numbersOf(await waiting), [n])
      }
    },
  },
  {
    id: 'C8',
    promise: 'ends an aborted wait with its reason, losing and reordering nothing',
    async check({ open, clock }) {
      const sender = await open()
      const receiver = await open()
      const reason = new Error('the worker stops')

      const controller = new AbortController()
      const wait = { max: 10, waitMs: forever, signal: controller.signal }
      const waiting = started(receiver.receive(['news'], wait))
      await clock.advance(10)
      controller.abort(reason)
      await assert.rejects(waiting, reason)
      await send(sender, numbered('news', 1, 2))
      await assert.rejects(receiver.receive(['news'], wait), reason)
      assert.deepEqual(await takeNumbers(receiver, 'news'), [1, 2])

      for (const turns of range(0, 30)) await checkAbortRace(sender, receiver, turns)
    },
  },
  {
    id: 'C13',
    promise: 'puts messages handed back where they were, with their expiry, whatever the capacity',
    async check({ open, clock }) {
      const sender = await open({ capacity: 6, expiryMs: 1_000 })
      const backend = await open({ capacity: 6, expiryMs: 1_000 })
      await send(sender, numbered('news', 1))
      await clock.advance(400)
      const retried = { channel: 'news', content: { n: 6 }, attempts: 2 }
      await send(sender, [...numbered('news', 2, 3, 4, 5), retried])

      const taken = await take(backend, 'news', 4)
      await send(sender, numbered('news', 7, 8, 9, 10))
      assert.deepEqual(failureCodes(await sender.send(numbered('news', 11))), [
        [0, 'ERR_CHANNEL_FULL'],
      ])
      const [first, second, third, fourth] = taken
      assert.ok(first && second && third && fourth)
      await backend.handBack([third, first])
      await backend.handBack([fourth, second])

      assert.deepEqual(numbersOf(await take(backend, 'news', 2)), [1, 2])
      await backend.handBack([second])
      await backend.handBack([first])
      await clock.advance(600)
      const rest = await take(backend, 'news')
      assert.deepEqual(numbersOf(rest), range(2, 10))
      assert.deepEqual(
        rest.map(({ attempts }) => attempts),
        [0, 0, 0, 0, 2, 0, 0, 0, 0],
      )

      const waiting = started(sender.receive(['news'], { max: 1, waitMs: forever }))
      await clock.advance(10)
      await backend.handBack(rest.slice(3, 4))
      assert.deepEqual(numbersOf(await waiting), [5])
    },
  },
  {
    id: 'C14',
    promise: 'reads many channels in one call, names the channel of each message, keeps to max',
    async check({ open }) {
      const backend = await open()
      const channels = Array.from({ length: 100 }, (_, index) => `channel.${index}`)
      await send(
        backend,
        channels.flatMap((channel, n) => numbered(channel, n)),
      )

      const received = new Map<string, unknown>()
      for (const max of [1, 2, 30, 1_000]) {
        const messages = await backend.receive(channels, { max, waitMs: 0 })
        assert.ok(messages.length <= max, `${messages.length} messages for max ${max}`)
        for (const { channel, content } of messages) received.set(channel, content.n)
      }

      assert.equal(received.size, 100)
      for (const [n, channel] of channels.entries()) assert.equal(received.get(channel), n)
    },
  },
  {
    id: 'C15',
    promise: 'keeps the time of expiry and the attempts that a message was sent with',
    async check({ open, clock }) {
      const sender = await open({ expiryMs: 1_000 })
      const receiver = await open({ expiryMs: 5_000 })
      const now = clock.now()

      await send(sender, [
        { channel: 'news', content: {} },
        { channel: 'news', content: {}, expiresAt: now + 7_777, attempts: 3 },
      ])

      assert.deepEqual(
        (await take(receiver, 'news')).map(({ channel, expiresAt, attempts }) => ({
          channel,
          expiresAt,
          attempts,
        })),
        [
          { channel: 'news', expiresAt: now + 1_000, attempts: 0 },
          { channel: 'news', expiresAt: now + 7_777, attempts: 3 },
        ],
      )
    },
  },
  {
    id: 'C19',
    promise: 'rejects a receive on no channel, for less than one message or a negative wait',
    async check({ open }) {
      const backend = await open()
      await send(backend, numbered('news', 1))

      for (const max of [0, -1, 1.5, Number.NaN]) {
        await rejectsWith(backend.receive(['news'], { max, waitMs: 0 }), 'ERR_INVALID_ARGUMENT')
      }
      for (const waitMs of [-1, Number.NaN]) {
        await rejectsWith(backend.receive(['news'], { max: 1, waitMs }), 'ERR_INVALID_ARGUMENT')
      }
      await rejectsWith(backend.receive([], { max: 1, waitMs: 0 }), 'ERR_INVALID_ARGUMENT')
      assert.deepEqual(await takeNumbers(backend, 'news'), [1])
    },
  },
  {
    id: 'C20',
    promise: 'leaves no message lying while a receiver waits for its channel',
    async check({ open, clock }) {
      const backend = await open()
      const other = await open()

      for (const round of range(1, 10)) {
        const controller = new AbortController()
        const wait = { max: 1, waitMs: forever, signal: controller.signal }
        const received: unknown[] = []
        const waits = [
          backend.receive(['news', 'other'], wait),
          backend.receive(['other'], wait),
          other.receive(['news'], wait),
        ].map((receiving) => started(receiving.then((got) => received.push(...numbersOf(got)))))
        await clock.advance(10)
        await send(other, [...numbered('news', round), ...numbered('other', round)])
        await eventually(async () => assert.deepEqual(received, [round, round]))
        controller.abort()
        await Promise.allSettled(waits)
      }
    },
  },
]

async function untilServed(
  backend: ChannelBackend,
  channels: readonly string[],
  quiet: string,
): Promise<void> {
  for (const _attempt of range(1, 100)) {
    const [message] = await backend.receive(channels, { max: 1, waitMs: 0 })
    assert.ok(message)
    if (message.channel === quiet) return
    await send(backend, numbered(message.channel, 0))
    // Another reader of as many channels in the same process must not shift the turns.
    await backend.receive(
      channels.map((_channel, index) => `idle.${index}`),
      { max: 1, waitMs: 0 },
    )
  }
  assert.fail(`${quiet} was not served in 100 receives`)
}

/** Aborts a wait `turns` microtasks after a send began; the message must arrive once, somewhere. */
async function checkAbortRace(
  sender: ChannelBackend,
  receiver: ChannelBackend,
  turns: number,
): Promise<void> {
  const controller = new AbortController()
  const wait = { max: 10, waitMs: forever, signal: controller.signal }
  const waiting = started(receiver.receive(['news'], wait))
  const sending = send(sender, numbered('news', 1, 2))
  for (let turn = 0; turn < turns; turn++) await Promise.resolve()
  controller.abort()
  const [outcome] = await Promise.allSettled([waiting, sending])
  await sending
  const received = outcome.status === 'fulfilled' ? numbersOf(outcome.value) : []

  received.push(...(await takeNumbers(receiver, 'news')))

  assert.deepEqual(received, [1, 2], `aborted after ${turns} microtasks`)
}
