import {
  Channel,
  type Consumer,
  channelSession,
  defineRouting,
  holdSends,
  linearize,
  type Message,
  Requeue,
  route,
  type Session,
  Worker,
  wrapConsumer,
} from 'channelkit'
import { MemoryBackend, MemoryStore } from 'channelkit/memory'
import { FakeClock, TestSite } from 'channelkit/testing'
import { describe, expect, it } from 'vitest'
import { silentLogger } from '../../../src/logger.ts'
import { deferred } from '../../support/deferred.ts'
import { openSessionSite } from '../../support/session-site.ts'

/** A message of one client for `jobs`. */
function sendJob(client: string, n: number): Promise<void> {
  return Channel('jobs').send({ n, reply_channel: client })
}

/** A site whose one consumer, of `jobs`, runs until `end` is called for it. */
async function siteOfSteps(wrap: (consumer: Consumer) => Consumer = linearize) {
  const begun: unknown[] = []
  const ends = new Map<unknown, (error?: unknown) => void>()
  const steps = async (message: Message): Promise<void> => {
    begun.push(message.content.n)
    await new Promise<void>((resolve, reject) => {
      ends.set(message.content.n, (error) => (error === undefined ? resolve() : reject(error)))
    })
  }
  const site = await TestSite.open({ routing: defineRouting({ jobs: wrap(steps) }) })
  const end = async (n: number, error?: unknown): Promise<void> => {
    ends.get(n)?.(error)
    await site.advance(0)
  }
  return { site, begun, end }
}

describe('linearize', () => {
  it('runs one client’s messages one after the other, and clients side by side', async () => {
    const { site, begun, end } = await siteOfSteps()
    await using _ = site
    for (const n of [1, 2, 3]) await sendJob('ada', n)
    await sendJob('bob', 4)
    await site.advance(0)

    expect(begun).toEqual([1, 4])
    await end(1)
    expect(begun).toEqual([1, 4, 2])
    await end(4)
    await end(2)
    expect(begun).toEqual([1, 4, 2, 3])
    await end(3)
  })

  it('runs a socket’s events in the order in which they happened', async () => {
    const seen: string[] = []
    const slowly = (first: number) =>
      linearize(async (message: Message) => {
        for (let turns = first; turns > 0; turns--) await new Promise(setImmediate)
        seen.push(`${message.channel} ${message.content.content ?? ''}`.trim())
      })
    await using site = await TestSite.open({
      routing: defineRouting({
        'websocket.connect': slowly(9) as never,
        'websocket.receive': slowly(5) as never,
        'websocket.disconnect': slowly(0) as never,
      }),
    })

    const socket = await site.connect('/')
    socket.send('a')
    socket.send('b')
    await socket.close()
    await site.drain()

    expect(seen).toEqual([
      'websocket.connect',
      'websocket.receive a',
      'websocket.receive b',
      'websocket.disconnect',
    ])
  })

  it('goes on after an exception', async () => {
    const { site, begun, end } = await siteOfSteps()
    await using _ = site
    await sendJob('ada', 1)
    await sendJob('ada', 2)
    await site.advance(0)

    await end(1, new Error('broken'))

    expect(begun).toEqual([1, 2])
    await end(2)
    await site.expectError('broken')
  })

  it('lets the line go on at a Requeue, whose message comes again behind what waits', async () => {
    const { site, begun, end } = await siteOfSteps()
    await using _ = site
    await sendJob('ada', 1)
    await sendJob('ada', 2)
    await site.advance(0)

    await end(1, new Requeue({ delayMs: 100 }))
    await site.advance(100)
    await sendJob('ada', 3)
    expect(begun).toEqual([1, 2])
    await end(2)

    expect(begun).toEqual([1, 2, 1])
    await end(1)
    await end(3)
    expect(begun).toEqual([1, 2, 1, 3])
  })

  it.each<[string, (consumer: Consumer) => Consumer]>([
    ['outside of holdSends', (consumer) => linearize(holdSends(consumer))],
    ['inside of holdSends', (consumer) => holdSends(linearize(consumer))],
    ['twice', (consumer) => linearize(linearize(consumer))],
    [
      'inside of a wrapper of the site',
      (consumer) => {
        const inner = linearize(consumer)
        return wrapConsumer((message: Message) => inner(message), inner)
      },
    ],
  ])('works %s', async (_where, wrap) => {
    const { site, begun, end } = await siteOfSteps(wrap)
    await using _ = site
    await sendJob('ada', 1)
    await sendJob('ada', 2)
    await site.advance(0)

    expect(begun).toEqual([1])
    await end(1)
    await end(2)

    expect(begun).toEqual([1, 2])
  })

  it('works behind a route by path', async () => {
    const seen: unknown[] = []
    const held = deferred()
    const consumer = linearize(async (message: Message) => {
      seen.push(message.content.n)
      if (message.content.n === 1) await held.promise
    })
    const routing = defineRouting({}, route('jobs', { path: '/games' }, consumer))
    await using site = await TestSite.open({ routing })
    for (const n of [1, 2]) {
      await Channel('jobs').send({ n, reply_channel: 'ada', path: '/games' })
    }
    await site.advance(0)

    expect(seen).toEqual([1])
    held.resolve()
    await site.drain()

    expect(seen).toEqual([1, 2])
  })

  it('fails when a wrapper hides it, and names the consumer', async () => {
    const inner = linearize(function work() {})
    await using site = await TestSite.open({
      routing: defineRouting({ jobs: (message: Message) => inner(message) }),
    })

    await sendJob('ada', 1)

    expect(await site.expectError('linearize around work on jobs is hidden')).toMatchObject({
      code: 'ERR_WRAPPER_MISUSE',
    })
  })

  it('fails on a message without reply channel, naming channel and wrapper', async () => {
    await using site = await TestSite.open({
      routing: defineRouting({ jobs: linearize(() => {}) }),
    })

    await Channel('jobs').send({ n: 1 })

    expect(await site.expectError('linearize on jobs')).toMatchObject({
      code: 'ERR_NO_REPLY_CHANNEL',
    })
  })

  describe('once the turn is lost', () => {
    /** A site whose consumer is held up until its turn is lost; its message is the first of two. */
    async function lateSite(
      late: (message: Message & { channelSession: Session }) => Promise<void>,
      wrap: (consumer: Consumer) => Consumer = linearize,
    ) {
      const held = deferred()
      const consumer = channelSession(async (message: Message & { channelSession: Session }) => {
        if (message.content.content !== 'first') return
        await held.promise
        await late(message)
      })
      const site = await openSessionSite(
        { 'websocket.receive': wrap(consumer as Consumer) as never },
        { worker: { lineLeaseMs: 3_000, maxTurnMs: 3_000 } },
      )
      const socket = await site.connect('/')
      socket.send('first')
      await site.test.advance(7_000)
      held.resolve()
      await site.test.expectError('raise worker.maxTurnMs')
      return { site, socket }
    }

    it('saves no session', async () => {
      const { site } = await lateSite(async (message) => {
        message.channelSession.score = 1
      })
      await using _ = site

      expect(await site.test.expectError('the channel session is not saved')).toMatchObject({
        code: 'ERR_LOCK_LOST',
      })
      expect(JSON.stringify(await site.all())).not.toContain('score')
    })

    it('saves none when the consumer throws either, and logs both', async () => {
      const { site } = await lateSite(async (message) => {
        message.channelSession.score = 1
        throw new Error('broken')
      })
      await using _ = site

      await site.test.expectError('the channel session is not saved')
      await site.test.expectError('broken')
      expect(JSON.stringify(await site.all())).not.toContain('score')
    })

    const toClient = (message: Message) => message.replyChannel.send({ content: 'late' })
    const byName = (message: Message) =>
      Channel(message.replyChannel.name).send({ content: 'late' })

    it.each<[string, (message: Message) => Promise<void>, (consumer: Consumer) => Consumer]>([
      ['at once', toClient, linearize],
      ['held', byName, (consumer) => linearize(holdSends(consumer))],
      ['held, linearize inside', byName, (consumer) => holdSends(linearize(consumer))],
    ])('sends nothing to the client, %s', async (_how, send, wrap) => {
      const { site, socket } = await lateSite(send, wrap)
      await using _ = site

      expect(await site.test.expectError(/nothing is sent|is not sent/)).toMatchObject({
        code: 'ERR_LOCK_LOST',
      })
      await socket.expectNothing()
    })
  })

  it('lets what a consumer left running send to the client, however late', async () => {
    const held = deferred()
    await using site = await TestSite.open({
      routing: defineRouting({
        'websocket.receive': linearize((message: Message<'websocket.receive'>) => {
          void held.promise.then(() => message.replyChannel.send({ content: 'later' }))
        }),
      }),
    })
    const socket = await site.connect('/')
    socket.send('go')
    await site.advance(50_000)

    held.resolve()

    expect(await socket.next()).toBe('later')
  })

  describe('in several workers', () => {
    function newWorkers(consumer: Consumer, settings = {}) {
      const clock = new FakeClock()
      const store = new MemoryStore()
      const routing = new Map([['jobs', linearize(consumer)]])
      const open = () => new MemoryBackend({ store, clock })
      const start = async () => {
        const backend = open()
        const worker = new Worker({ backend, routing, lineLeaseMs: 3_000, ...settings })
        await worker.start()
        return { backend, worker }
      }
      const sender = open()
      const send = (client: string, n: number) =>
        sender.send([{ channel: 'jobs', content: { n, reply_channel: client } }])
      return { clock, start, send }
    }

    it('goes on in another when one has died, and tells the dead one’s consumer', async () => {
      const seen: unknown[] = []
      const held = deferred()
      const signals: AbortSignal[] = []
      const { clock, start, send } = newWorkers(async (message) => {
        seen.push(message.content.n)
        if (message.content.n !== 1) return
        signals.push(message.signal)
        await held.promise
      })
      const first = await start()
      await send('ada', 1)
      await clock.advance(0)
      await send('ada', 2)
      await first.backend.close()
      const second = await start()

      await clock.advance(2_999)
      expect(seen).toEqual([1])
      await clock.advance(1)
      await clock.advance(2_000)

      expect(seen).toEqual([1, 2])
      expect(signals[0]?.aborted).toBe(true)
      expect(signals[0]?.reason).toMatchObject({ code: 'ERR_LOCK_LOST' })
      held.resolve()
      await clock.advance(0)
      await second.worker.stop()
    })

    it('keeps the turn of a consumer that runs longer than the lease', async () => {
      const seen: unknown[] = []
      const held = deferred()
      let signal: AbortSignal | undefined
      const { clock, start, send } = newWorkers(async (message) => {
        seen.push(message.content.n)
        if (message.content.n !== 1) return
        signal = message.signal
        await held.promise
      })
      const workers = [await start(), await start()]
      await send('ada', 1)
      await send('ada', 2)

      await clock.advance(50_000)
      expect(seen).toEqual([1])
      expect(signal?.aborted).toBe(false)
      held.resolve()
      await clock.advance(0)

      expect(seen).toEqual([1, 2])
      for (const { worker } of workers) await worker.stop()
    })

    it('gives up the turn of a consumer that does not end, and says so once', async () => {
      const seen: unknown[] = []
      const lines: string[] = []
      const logger = { ...silentLogger, error: (_: object, line: string) => void lines.push(line) }
      const held = deferred()
      let signal: AbortSignal | undefined
      const { clock, start, send } = newWorkers(
        async function endless(message) {
          seen.push(message.content.n)
          if (message.content.n !== 1) return
          signal = message.signal
          await held.promise
        },
        { maxTurnMs: 10_000, logger },
      )
      const first = await start()
      await send('ada', 1)
      await clock.advance(0)
      const second = await start()
      await send('ada', 2)

      await clock.advance(9_000)
      expect(signal?.aborted).toBe(false)
      await clock.advance(2_000)
      expect(signal?.reason).toMatchObject({ code: 'ERR_LOCK_LOST' })
      expect(String(signal?.reason)).toContain('longer than worker.maxTurnMs (10000)')
      expect(seen).toEqual([1])
      await clock.advance(3_000)
      expect(seen).toEqual([1, 2])
      await clock.advance(60_000)

      expect(lines).toHaveLength(1)
      expect(lines[0]).toMatch(/^endless has had its client’s turn on jobs for 1\d{4} ms/)
      expect(lines[0]).not.toContain('ada')
      expect(first.worker.counters.get('overran')).toBe(1)
      held.resolve()
      await clock.advance(0)
      for (const { worker } of [first, second]) await worker.stop()
    })

    it('goes on in order when a consumer ends as its turn is given up', async () => {
      const seen: unknown[] = []
      const { clock, start, send } = newWorkers(
        async (message) => {
          seen.push(`begin ${message.content.n}`)
          const { signal } = message
          if (message.content.n === 1) {
            await new Promise((resolve) => signal.addEventListener('abort', resolve))
          }
          seen.push(`end ${message.content.n}`)
        },
        { maxTurnMs: 10_000 },
      )
      const workers = [await start(), await start()]
      for (const n of [1, 2]) await send('ada', n)

      await clock.advance(11_000)

      expect(seen).toEqual(['begin 1', 'end 1', 'begin 2', 'end 2'])
      for (const { worker } of workers) await worker.stop()
    })

    it.each([
      ['before', 0],
      ['after', 60_000],
    ])('keeps order with a worker of other channels that started %s it', async (_, laterMs) => {
      const clock = new FakeClock()
      const store = new MemoryStore()
      const seen: string[] = []
      const held = deferred()
      const consumer = linearize(async ({ channel, content }: Message) => {
        seen.push(`${channel} ${content.reply_channel}`)
        if (content.reply_channel === 'bob') await held.promise
      })
      const open = () => new MemoryBackend({ store, clock })
      const start = async (channel: string) => {
        const routing = new Map([[channel, consumer]])
        const worker = new Worker({ backend: open(), routing, concurrency: 1 })
        await worker.start()
        return worker
      }
      const sender = open()
      const send = (channel: string, client: string) =>
        sender.send([{ channel, content: { reply_channel: client } }])
      const leaving = await start('disconnect')
      await clock.advance(laterMs)
      const receiving = await start('receive')
      await clock.advance(2_100)
      await send('receive', 'bob')
      await send('receive', 'ada')

      // The worker that would take it first is idle, the other is busy with bob.
      await send('disconnect', 'ada')
      await clock.advance(3_000)
      expect(seen).toEqual(['receive bob'])
      held.resolve()
      await clock.advance(0)

      expect(seen).toEqual(['receive bob', 'receive ada', 'disconnect ada'])
      for (const worker of [leaving, receiving]) await worker.stop()
    })

    it('goes on at once where a stopping worker’s consumer has ended', async () => {
      const seen: string[] = []
      const held = deferred()
      const { clock, start, send } = newWorkers(async (message) => {
        seen.push(`${message.content.n}`)
        if (message.content.n === 1) await held.promise
      })
      const first = await start()
      await send('ada', 1)
      await clock.advance(0)
      const second = await start()
      await send('ada', 2)
      await send('ada', 3)

      const stopping = first.worker.stop()
      await clock.advance(10)
      expect(seen).toEqual(['1'])
      held.resolve()
      await stopping
      await clock.advance(0)

      expect(seen).toEqual(['1', '2', '3'])
      expect(first.worker.counters.get('run')).toBe(1)
      await second.worker.stop()
    })
  })
})
