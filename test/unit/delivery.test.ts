import {
  Channel,
  type ChannelDelivery,
  type Consumer,
  type Content,
  type ContentValue,
  content,
  deadLetters,
  defineChannels,
  defineRouting,
  linearize,
  Requeue,
  replayDeadLetters,
} from 'channelkit'
import { MemoryBackend } from 'channelkit/memory'
import { TestSite } from 'channelkit/testing'
import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { currentSite } from '../../src/current-site.ts'
import { HeldMessages } from '../../src/held-messages.ts'
import { silentLogger } from '../../src/logger.ts'
import { deferred } from '../support/deferred.ts'

/** A site with a consumer of `jobs`, which is acknowledged after the run. */
function siteWith(consumer: Consumer, delivery: ChannelDelivery = {}): Promise<TestSite> {
  return TestSite.open({
    routing: defineRouting({ jobs: consumer }),
    channels: defineChannels({ jobs: { acknowledge: 'afterRun', ...delivery } }),
  })
}

const longMs = 3_600_000

/** Waits until all tries are over, and takes the errors that consumers threw. */
async function runOut(site: TestSite, errors: number): Promise<void> {
  for (let count = 0; count < errors; count++) {
    await site.advance(longMs)
    await site.expectError()
  }
  await site.advance(longMs)
}

describe("a channel with acknowledge: 'afterRun'", () => {
  it('runs a message once that succeeds', async () => {
    let runs = 0
    await using site = await siteWith(() => {
      runs++
    })

    await Channel('jobs').send({ n: 1 })
    await site.advance(longMs)

    expect(runs).toBe(1)
    expect(await deadLetters('jobs')).toEqual([])
  })

  it('runs a message again that failed, as it was sent and with one attempt more', async () => {
    const seen: unknown[] = []
    await using site = await siteWith(({ content, attempts }) => {
      seen.push([structuredClone(content), attempts])
      Object.assign(content, { n: 'changed' })
      if (attempts < 2) throw new Error('not yet')
    })

    await Channel('jobs').send({ n: 1 })
    await runOut(site, 2)

    expect(seen).toEqual([0, 1, 2].map((attempts) => [{ n: 1 }, attempts]))
    expect(await deadLetters('jobs')).toEqual([])
  })

  it('waits longer from try to try, some of it at random', async () => {
    const times: number[] = []
    await using site = await siteWith(
      () => {
        times.push(site.clock.now())
        throw new Error('never')
      },
      { retryDelayMs: 1_000, maxAttempts: 4 },
    )

    await Channel('jobs').send({})
    for (let second = 0; second < 80; second++) await site.advance(100)
    for (const _try of times) await site.expectError('never')
    const waits = times.slice(1).map((time, index) => time - (times[index] ?? 0))

    expect(waits).toHaveLength(3)
    for (const [index, wait] of waits.entries()) {
      expect(wait).toBeGreaterThanOrEqual(500 * 2 ** index)
      expect(wait).toBeLessThanOrEqual(1_000 * 2 ** index + 10)
    }
  })

  it('makes a dead letter of what failed maxAttempts times, which can be replayed', async () => {
    let fails = true
    const seen: unknown[] = []
    await using site = await siteWith(
      ({ content, attempts }) => {
        seen.push([content.n, attempts])
        if (fails) throw new RangeError(`no ${content.n}`)
      },
      { maxAttempts: 3 },
    )
    await Channel('jobs').send({ n: 1 })
    await runOut(site, 3)
    const failedAt = expect.any(Number)
    const error = { name: 'RangeError', message: 'no 1' }

    const letter = { channel: 'jobs', content: { n: 1 }, attempts: 3, error, failedAt }
    expect(await deadLetters('jobs')).toEqual([letter])
    expect(await deadLetters('jobs')).toEqual([letter])

    fails = false
    expect(await replayDeadLetters('jobs')).toBe(1)
    await site.advance(longMs)
    expect(seen).toEqual([
      [1, 0],
      [1, 1],
      [1, 2],
      [1, 0],
    ])
    expect(await replayDeadLetters('jobs')).toBe(0)
  })

  it('uses the dead-letter channel that is declared', async () => {
    await using site = await siteWith(
      () => {
        throw new Error('never')
      },
      { maxAttempts: 1, deadLetterChannel: 'morgue' },
    )
    await Channel('jobs').send({ n: 1 })
    await runOut(site, 1)

    expect(await deadLetters('jobs')).toHaveLength(1)
    const [message] = await site.receive('morgue')
    expect(message?.content.content).toEqual({ n: 1 })
  })

  it('counts Requeue as a try, and waits as long as that says', async () => {
    const times: number[] = []
    await using site = await siteWith(
      () => {
        times.push(site.clock.now())
        throw new Requeue({ delayMs: 7_000 })
      },
      { maxAttempts: 2 },
    )
    await Channel('jobs').send({ n: 1 })
    for (let second = 0; second < 10; second++) await site.advance(1_000)

    expect(times).toHaveLength(2)
    expect((times[1] ?? 0) - (times[0] ?? 0)).toBe(7_000)
    const [letter] = await deadLetters('jobs')
    expect(letter?.error).toEqual({
      name: 'Requeue',
      message: 'its consumer put it back each time',
    })
  })

  it('makes a dead letter at once of what does not fit its schema', async () => {
    let runs = 0
    await using site = await TestSite.open({
      routing: defineRouting({
        jobs: () => {
          runs++
        },
      }),
      channels: defineChannels({
        jobs: { schema: z.object({ n: z.number() }), acknowledge: 'afterRun' },
      }),
    })
    await currentSite()
      .backend()
      .send([{ channel: 'jobs', content: { n: 'text' } }])
    await site.advance(longMs)
    await site.expectError('does not fit its schema')

    expect(runs).toBe(0)
    const [letter] = await deadLetters('jobs')
    expect(letter).toMatchObject({ content: { n: 'text' }, error: { name: 'ChannelkitError' } })
  })

  it('tries again what failed in sending on, which says nothing of its own content', async () => {
    let runs = 0
    await using site = await siteWith(async () => {
      runs++
      if (runs === 1) await Channel('other').send({ n: Number.NaN })
    })
    await Channel('jobs').send({ n: 1 })
    await runOut(site, 1)

    expect(runs).toBe(2)
    expect(await deadLetters('jobs')).toEqual([])
  })

  it('is renewed while its consumer runs for long', async () => {
    const held = deferred()
    let runs = 0
    await using site = await siteWith(async () => {
      runs++
      await held.promise
    })
    await Channel('jobs').send({ n: 1 })
    for (let minute = 0; minute < 10; minute++) await site.clock.advance(60_000)
    held.resolve()
    await site.advance(longMs)

    expect(runs).toBe(1)
  })

  it('keeps one client\u2019s messages apart with linearize, and goes on behind a failure', async () => {
    const order: unknown[] = []
    await using site = await siteWith(
      linearize(({ content, attempts }) => {
        order.push([content.n, attempts])
        if (content.n === 1 && attempts === 0) throw new Error('once')
      }),
    )
    for (const n of [1, 2, 3]) await Channel('jobs').send({ n, reply_channel: 'reply.a!b' })
    await runOut(site, 1)

    expect(order).toEqual([
      [1, 0],
      [2, 0],
      [3, 0],
      [1, 1],
    ])
  })

  it('has its own letters on a channel that others share, and leaves there what is none', async () => {
    await using site = await siteWith(() => {}, { deadLetterChannel: 'morgue' })
    const letterOf = (channel: string, content: ContentValue) => ({
      channel: 'morgue',
      content: { channel, content, attempts: 1, error: { name: 'E', message: '' }, failed_at: 1 },
    })
    await currentSite()
      .backend()
      .send([
        letterOf('other', { n: 1 }),
        { channel: 'morgue', content: { hello: 'there' } },
        ...[[1], new Uint8Array(1), null].map((content) => letterOf('jobs', content)),
        letterOf('jobs', { n: 2 }),
      ])

    expect((await deadLetters('jobs')).map(({ content }) => content)).toEqual([{ n: 2 }])
    expect(await replayDeadLetters('jobs')).toBe(1)
    expect(await replayDeadLetters('jobs')).toBe(0)
    await site.advance(1)
    const left = await currentSite().backend().channels()
    expect(left).toMatchObject([{ channel: 'morgue', waiting: 5 }])
    await expect(deadLetters('ada!1')).rejects.toMatchObject({ code: 'ERR_INVALID_NAME' })
  })

  it('makes a dead letter of content as deep as can be sent', async () => {
    let deep: Content = {}
    for (let depth = 0; depth < 64; depth++) deep = { deep }
    let fails = true
    await using site = await siteWith(
      () => {
        if (fails) throw new Error('never')
      },
      { maxAttempts: 1 },
    )
    await Channel('jobs').send(deep)
    await runOut(site, 1)
    fails = false

    expect((await deadLetters('jobs')).map(({ content }) => content)).toEqual([deep])
    expect(await replayDeadLetters('jobs')).toBe(1)
  })

  it('acknowledges others though one can never be acknowledged', async () => {
    const cycle: Record<string, unknown> = {}
    cycle.cycle = cycle
    const backend = new MemoryBackend()
    const lines: string[] = []
    const error = (_fields: object, message: string) => void lines.push(message)
    const held = new HeldMessages({ backend, leaseMs: 60_000, logger: { ...silentLogger, error } })
    await backend.send([1, 2].map((n) => ({ channel: 'jobs', content: { n } })))
    const hold = { channels: ['jobs'], leaseMs: 60_000 }
    const [first, second] = await backend.receive(['jobs'], { max: 2, waitMs: 0, hold })
    if (!first || !second) throw new Error('nothing came')
    held.hold(first)
    held.hold(second)

    const next = { channel: 'jobs.dead', content: cycle as Content }
    const outcomes = await Promise.all([held.settle(first, next), held.settle(second)])

    expect(outcomes).toEqual(['lost', 'settled'])
    expect(lines).toEqual([
      'a message could not be acknowledged; it comes again when its hold lapses',
    ])
    held.close()
    await backend.close()
  })

  it('loses nothing when a dead letter finds its channel full', async () => {
    let fails = true
    const done: unknown[] = []
    await using site = await TestSite.open({
      routing: defineRouting({
        jobs: ({ content }) => {
          if (fails) throw new Error('never')
          done.push(content.n)
        },
      }),
      channels: defineChannels({ jobs: { acknowledge: 'afterRun', maxAttempts: 1 } }),
    })
    const { capacity } = currentSite().backend().limits
    const letters = Array.from({ length: capacity }, () => ({
      channel: 'jobs.dead',
      content: {},
      expiresAt: site.clock.now() + 10 * longMs,
    }))
    await currentSite().backend().send(letters)
    await Channel('jobs').send({ n: 1 })
    await site.advance(10)
    await site.expectError('never')
    await site.expectError('found jobs.dead full')
    await site.receive('jobs.dead')
    await site.advance(longMs)
    fails = false

    expect(await replayDeadLetters('jobs')).toBe(1)
    await site.advance(longMs)
    expect(done).toEqual([1])
  })
})

describe('defineChannels', () => {
  it.each([
    [{ acknowledge: 'later' }, 'acknowledge of channel jobs is "later"; give \'beforeRun\' or'],
    [{ acknowledge: 'afterRun', maxAttempts: 0 }, 'maxAttempts of channel jobs is 0; give a whole'],
    [{ acknowledge: 'afterRun', retryDelayMs: 0.5 }, 'retryDelayMs of channel jobs is 0.5'],
    [{ acknowledge: 'afterRun', deadLetterChannel: 'jobs' }, 'is the channel itself'],
    [{ acknowledge: 'afterRun', deadLetterChannel: 'a b' }, 'channel name "a b" has the character'],
  ])('refuses %j', (delivery, reason) => {
    expect(() => defineChannels({ jobs: delivery as ChannelDelivery })).toThrow(reason)
  })

  it('takes what content() declares with how it is delivered', () => {
    const channels = defineChannels({ jobs: content<{ n: number }>({ acknowledge: 'afterRun' }) })

    expect(channels.jobs.acknowledge).toBe('afterRun')
  })
})
