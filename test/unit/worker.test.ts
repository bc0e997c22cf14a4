import {
  Channel,
  type Consumer,
  defineChannels,
  defineRouting,
  type Message,
  Requeue,
  Worker,
} from 'channelkit'
import type { IncomingMessage } from 'channelkit/backend'
import { MemoryBackend, MemoryStore } from 'channelkit/memory'
import { FakeClock, TestSite, type TestSiteOptions } from 'channelkit/testing'
import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { BreakableBackend } from '../support/breakable-backend.ts'
import { deferred } from '../support/deferred.ts'

/** A site whose one consumer, called `work`, has the channel `jobs`. */
function siteWith(work: Consumer, worker = {}, options: TestSiteOptions = {}): Promise<TestSite> {
  const consumer = { work: (message: Message) => work(message) }.work
  return TestSite.open({ routing: defineRouting({ jobs: consumer }), worker }, options)
}

describe('Worker', () => {
  it('runs a consumer once for each message, in order', async () => {
    const seen: unknown[] = []
    await using site = await siteWith((message) => {
      seen.push(message.content.n)
    })

    for (let n = 0; n < 5; n++) await Channel('jobs').send({ n })
    await site.drain()

    expect(seen).toEqual([0, 1, 2, 3, 4])
    expect(site.counters()).toMatchObject({ run: 5, sent: 5 })
    expect(site.counters()).not.toHaveProperty('requeued')
  })

  it('gives each message to one of several workers', async () => {
    const store = new MemoryStore()
    const backend = () => new MemoryBackend({ store })
    const seen: unknown[] = []
    const routing = new Map<string, Consumer>([
      ['jobs', async (message) => void seen.push(message.content.n)],
    ])
    const workers = Array.from({ length: 4 }, () => new Worker({ backend: backend(), routing }))
    await Promise.all(workers.map((worker) => worker.start()))

    const messages = Array.from({ length: 500 }, (_, n) => ({ channel: 'jobs', content: { n } }))
    await backend().send(messages)
    while (seen.length < 500) await new Promise(setImmediate)
    await Promise.all(workers.map((worker) => worker.stop()))

    expect(new Set(seen).size).toBe(500)
    expect(seen).toHaveLength(500)
  })

  it('answers the echo channel, as a probe that it lives', async () => {
    await using site = await TestSite.open()

    await site.channel('__channels__.echo').send({ reply_channel: 'probe', n: 1 } as never)

    const [answer] = await site.receive('probe')
    expect(answer?.content).toEqual({ reply_channel: 'probe', n: 1 })
  })

  it('runs no more consumers at once than its concurrency', async () => {
    const ends: (() => void)[] = []
    let most = 0
    let now = 0
    await using site = await siteWith(
      async () => {
        now++
        most = Math.max(most, now)
        await new Promise<void>((resolve) => ends.push(resolve))
        now--
      },
      { concurrency: 3 },
      { patienceMs: 20 },
    )
    for (let n = 0; n < 7; n++) await Channel('jobs').send({ n })

    await site.advance(0)
    expect(now).toBe(3)
    while (ends.length > 0) {
      ends.shift()?.()
      await site.advance(0)
    }

    expect(most).toBe(3)
    expect(site.counters().run).toBe(7)
  })

  it.each([
    ['concurrency', 0],
    ['concurrency', 10_001],
    ['concurrency', 1.5],
    ['maxRequeues', -1],
    ['maxRequeues', '3'],
    ['graceMs', Number.NaN],
  ])('refuses the setting %s %j', (name, value) => {
    const backend = new MemoryBackend()

    expect(() => new Worker({ backend, routing: new Map(), [name]: value })).toThrow(
      expect.objectContaining({
        code: 'ERR_INVALID_CONFIG',
        message: expect.stringMatching(`^${name} is `),
      }),
    )
  })

  describe('when a consumer fails', () => {
    const proxy = Proxy.revocable({}, {})
    proxy.revoke()
    const unprintable = {
      toString() {
        throw new Error('no text')
      },
    }
    it.each<[string, unknown, string]>([
      ['an Error', new Error('broken'), 'broken'],
      ['undefined', undefined, 'it threw undefined'],
      ['null', null, 'it threw null'],
      ['a string', 'text', 'it threw "text"'],
      ['a symbol', Symbol('mark'), 'it threw Symbol(mark)'],
      ['an object without prototype', Object.create(null), 'it threw [object Object]'],
      ['an object whose toString throws', unprintable, 'it threw [object Object]'],
      ['a revoked proxy', proxy.proxy, 'revoked'],
    ])('goes on after one that throws %s, at once or later', async (_what, thrown, message) => {
      const seen: unknown[] = []
      await using site = await siteWith((message) => {
        seen.push(message.content.n)
        if (message.content.n === 0) throw thrown
        if (message.content.n === 1) return Promise.reject(thrown)
      })

      for (let n = 0; n < 3; n++) await Channel('jobs').send({ n })
      await site.drain()

      expect(seen).toEqual([0, 1, 2])
      await site.expectError(message)
      await site.expectError(message)
    })

    it('logs the names of consumer and channel, and counts', async () => {
      await using site = await siteWith(() => {
        throw new Error('broken')
      })

      await Channel('jobs').send({})
      await site.expectError('broken')

      expect(site.counters().failed).toBe(1)
      expect(site.log).toContainEqual({
        level: 'error',
        facts: { err: new Error('broken'), consumer: 'work', channel: 'jobs' },
        message: 'consumer work failed on jobs',
      })
    })

    it.each([
      ['a value that is no promise', 7],
      [
        'a thenable that rejects',
        // biome-ignore lint/suspicious/noThenProperty: a thenable is what is tried.
        { then: (_: unknown, fail: (error: Error) => void) => fail(new Error('late')) },
      ],
    ])('goes on after one that returns %s', async (_what, returned) => {
      await using site = await siteWith(() => returned as never)

      await Channel('jobs').send({})
      await Channel('jobs').send({})
      await site.drain()

      expect(site.counters().run).toBe(2)
      while (site.errors.length > 0) await site.expectError('late')
    })
  })

  describe('when a consumer throws Requeue', () => {
    it('runs the same message again later, once', async () => {
      const attempts: number[] = []
      await using site = await siteWith((message) => {
        attempts.push(message.attempts)
        if (message.attempts === 0) throw new Requeue()
      })
      await Channel('jobs').send({ n: 1 })

      await site.drain()
      expect(attempts).toEqual([0])
      await site.advance(60_000)

      expect(attempts).toEqual([0, 1])
      expect(site.counters()).toMatchObject({ run: 2, requeued: 1, sent: 2 })
    })

    it('waits longer each time, and for as long as it is told', async () => {
      const times: number[] = []
      await using site = await siteWith((message) => {
        times.push(site.clock.now() - startedAt)
        if (message.attempts === 2) throw new Requeue({ delayMs: 5_000 })
        if (message.attempts < 4) throw new Requeue()
      })
      const startedAt = site.clock.now()
      await Channel('jobs').send({})

      await site.advance(30_000)

      expect(times).toEqual([0, 100, 300, 5_300, 6_100])
    })

    it('drops the message with a warning when it did so too often, and counts it', async () => {
      let runs = 0
      await using site = await siteWith(() => {
        runs++
        throw new Requeue({ delayMs: 0 })
      })
      await Channel('jobs').send({})

      await site.advance(1_000)

      expect(runs).toBe(11)
      expect(site.counters()).toMatchObject({ requeued: 10, 'dropped.requeued-too-often': 1 })
      expect(site.log).toContainEqual({
        level: 'warn',
        facts: { consumer: 'work', channel: 'jobs', attempts: 11 },
        message: 'a message of jobs is dropped: work put it back 11 times',
      })
      expect(site.errors).toEqual([])
    })

    it('keeps to maxRequeues', async () => {
      let runs = 0
      await using site = await siteWith(
        () => {
          runs++
          throw new Requeue({ delayMs: 0 })
        },
        { maxRequeues: 0 },
      )
      await Channel('jobs').send({})

      await site.advance(1_000)

      expect(runs).toBe(1)
    })

    it('drops the message when it would expire first', async () => {
      await using site = await siteWith(() => {
        throw new Requeue({ delayMs: 60_000 })
      })
      await Channel('jobs').send({})

      await site.advance(120_000)

      expect(site.counters()).toMatchObject({ run: 1, 'dropped.expired': 1 })
    })

    it('puts the message back where it was when its channel is full', async () => {
      const held = deferred()
      const seen: unknown[] = []
      await using site = await siteWith(
        (message) => {
          seen.push([message.content.n, message.attempts])
          if (message.content.n === 0 && message.attempts === 0) {
            throw new Requeue({ delayMs: 100 })
          }
          return held.promise
        },
        { concurrency: 1 },
        { backend: { capacity: 1 } },
      )
      await Channel('jobs').send({ n: 0 })
      await site.drain()
      await Channel('jobs').send({ n: 1 })
      await site.advance(0)
      await Channel('jobs').send({ n: 2 })

      await site.advance(100)
      held.resolve()
      await site.advance(0)

      expect(seen).toEqual([
        [0, 0],
        [1, 0],
        [0, 1],
        [2, 0],
      ])
      expect(site.counters()).toMatchObject({ requeued: 1 })
      expect(site.counters()).not.toHaveProperty('dropped.requeue-failed')
    })

    it.each([
      ['sends the message when the backend is back in time', 20_000, { requeued: 1 }],
      ['counts the message when the backend stays away', 70_000, { 'dropped.requeue-failed': 1 }],
    ])('%s', async (_title, awayMs, counters) => {
      const clock = new FakeClock()
      const backend = new BreakableBackend({ clock })
      const consumer: Consumer = ({ attempts }) => {
        if (attempts === 0) throw new Requeue()
      }
      const worker = new Worker({ backend, routing: new Map([['jobs', consumer]]) })
      await worker.start()
      await backend.send([{ channel: 'jobs', content: {} }])
      await clock.advance(0)
      backend.breaks()
      await clock.advance(awayMs)
      backend.mends()

      await clock.advance(60_000)

      expect(worker.counters.snapshot()).toMatchObject(counters)
      await worker.stop()
    })

    it.each([-1, Number.NaN])('refuses a delay of %s ms', (delayMs) => {
      expect(() => new Requeue({ delayMs })).toThrow(
        expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT' }),
      )
    })
  })

  describe('.stop()', () => {
    async function newWorker(consumer: Consumer, settings = {}) {
      const clock = new FakeClock()
      const backend = new MemoryBackend({ clock })
      const routing = new Map([['jobs', consumer]])
      const worker = new Worker({ backend, routing, ...settings })
      await worker.start()
      const send = (n: number) => backend.send([{ channel: 'jobs', content: { n } }])
      return { clock, backend, worker, send }
    }

    it('waits for the consumer that runs, and takes no other message', async () => {
      const held = deferred()
      const seen: unknown[] = []
      const { worker, send, backend, clock } = await newWorker(
        async (message) => {
          seen.push(message.content.n)
          await held.promise
        },
        { concurrency: 1 },
      )
      await send(1)
      await clock.advance(0)
      await send(2)

      const stopping = worker.stop()
      await clock.advance(1_000)
      expect(worker.runningCount).toBe(1)
      held.resolve()

      expect(await stopping).toEqual([])
      expect(seen).toEqual([1])
      const waiting = await backend.receive(['jobs'], { max: 9, waitMs: 0 })
      expect(waiting.map(({ content }) => content)).toEqual([{ n: 2 }])
    })

    it('hands back what it received while stopping', async () => {
      const seen: unknown[] = []
      const taken = deferred()
      const handedOver = deferred()
      class SlowBackend extends MemoryBackend {
        override async receive(channels: readonly string[]): Promise<readonly IncomingMessage[]> {
          const batch = await super.receive(channels, { max: 9, waitMs: Number.POSITIVE_INFINITY })
          taken.resolve()
          await handedOver.promise
          return batch
        }
      }
      const backend = new SlowBackend()
      const consumer: Consumer = (message) => void seen.push(message.content.n)
      const worker = new Worker({ backend, routing: new Map([['jobs', consumer]]) })
      await worker.start()
      await backend.send([{ channel: 'jobs', content: { n: 1 } }])
      await taken.promise

      const stopping = worker.stop()
      handedOver.resolve()
      await stopping

      expect(seen).toEqual([])
      expect(worker.counters.get('handed-back')).toBe(1)
      expect(await backend.channels()).toMatchObject([{ channel: 'jobs', waiting: 1 }])
    })

    it('reports the consumers that do not end within the grace', async () => {
      const { worker, send, clock } = await newWorker(
        function endless() {
          return new Promise<void>(() => {})
        },
        { graceMs: 5_000 },
      )
      await send(1)
      await clock.advance(0)
      let isStopped = false

      const stopping = worker.stop().finally(() => {
        isStopped = true
      })
      await clock.advance(4_999)
      expect(isStopped).toBe(false)
      await clock.advance(1)

      expect(await stopping).toEqual([{ consumer: 'endless', channel: 'jobs' }])
    })

    it('sends requeued messages back at once instead of waiting with them', async () => {
      const { worker, send, backend, clock } = await newWorker(() => {
        throw new Requeue({ delayMs: 10_000 })
      })
      await send(1)
      await clock.advance(0)

      await worker.stop()

      const [message] = await backend.receive(['jobs'], { max: 1, waitMs: 0 })
      expect(message).toMatchObject({ content: { n: 1 }, attempts: 1 })
    })

    it('may be called twice, and before a start has ended', async () => {
      const { worker, clock } = await newWorker(() => {})
      const late = new Worker({ backend: new MemoryBackend({ clock }), routing: new Map() })

      const [starting, stopping] = [late.start(), late.stop()]

      expect(await Promise.all([worker.stop(), worker.stop(), stopping])).toEqual([[], [], []])
      await starting
      expect(clock.scheduledCount).toBe(0)
    })
  })

  it('is announced with its channels while it runs', async () => {
    const clock = new FakeClock()
    const backend = new MemoryBackend({ clock })
    const worker = new Worker({ backend, routing: new Map([['jobs', () => {}]]) })

    await Promise.all([worker.start(), worker.start()])
    await clock.advance(100_000)
    const during = await backend.processes()
    await worker.stop()

    expect(during).toMatchObject([
      { id: worker.id, kind: 'worker', pid: process.pid, channels: ['__channels__.echo', 'jobs'] },
    ])
    expect(await backend.processes()).toEqual([])
  })

  it('goes on when its backend is away for a while, and says so once', async () => {
    const seen: unknown[] = []
    const { backend, site } = await siteOnBreakable((message) => {
      seen.push(message.content.n)
    })
    backend.breaks()
    await site.clock.advance(20_000)

    backend.mends()
    await backend.send([{ channel: 'jobs', content: { n: 1 } }])
    await site.clock.advance(10_000)

    expect(seen).toEqual([1])
    expect(site.messages).toEqual([
      'channel backend is away; trying again until it is back',
      'channel backend is back',
    ])
    await site.worker.stop()
  })

  describe('with a schema', () => {
    const channels = defineChannels({
      jobs: { schema: z.object({ n: z.number(), unit: z.string().default('ms') }) },
    })

    it('gives consumers what the schema makes of a message', async () => {
      const seen: unknown[] = []
      const routing = defineRouting({
        jobs: (message: Message) => {
          seen.push(message.content)
        },
      })
      await using site = await TestSite.open({ routing, channels })

      await Channel('jobs').send({ n: 1 })
      await site.drain()

      expect(seen).toEqual([{ n: 1, unit: 'ms' }])
    })

    it('drops a message that does not fit, whoever sent it, and counts it', async () => {
      const seen: unknown[] = []
      const routing = defineRouting({
        jobs: (message: Message) => {
          seen.push(message.content)
        },
      })
      const clock = new FakeClock()
      const backend = new MemoryBackend({ clock })
      const errors: unknown[] = []
      const worker = new Worker({
        backend,
        routing: routing.routes as ReadonlyMap<string, Consumer>,
        declaration: () => channels.jobs,
        logger: {
          debug: () => {},
          info: () => {},
          warn: () => {},
          error: (facts) => errors.push(facts),
        },
      })
      await worker.start()

      await backend.send([{ channel: 'jobs', content: { n: 'many' } }])
      await clock.advance(0)
      await worker.stop()

      expect(seen).toEqual([])
      expect(worker.counters.snapshot()).toMatchObject({ 'dropped.invalid': 1, failed: 1 })
      expect(errors).toMatchObject([{ err: { code: 'ERR_INVALID_CONTENT' }, channel: 'jobs' }])
    })
  })
})

async function siteOnBreakable(consumer: Consumer) {
  const clock = new FakeClock()
  const backend = new BreakableBackend({ clock })
  const messages: string[] = []
  const note = (_facts: object, message: string) => void messages.push(message)
  const worker = new Worker({
    backend,
    routing: new Map([['jobs', consumer]]),
    logger: { debug: () => {}, info: note, warn: note, error: note },
  })
  await worker.start()
  return { backend, site: { clock, worker, messages } }
}
