import { ChannelkitError, type Content } from 'channelkit'
import type { BackendOptions } from 'channelkit/backend'
import { FakeClock } from 'channelkit/testing'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { EventOutbox, type EventSource } from '../../../src/interface-servers/event-outbox.ts'
import { Counters } from '../../../src/internal/counters.ts'
import { silentLogger } from '../../../src/logger.ts'
import { BreakableBackend } from '../../support/breakable-backend.ts'

/** A client that notes what the outbox asks of it. */
class Client implements EventSource {
  isHeld = false
  readonly refused: ChannelkitError[] = []

  holdReading(): void {
    this.isHeld = true
  }

  resumeReading(): void {
    this.isHeld = false
  }

  refuseEvent(error: ChannelkitError): void {
    this.refused.push(error)
  }
}

function newOutbox(options: BackendOptions = {}) {
  const clock = new FakeClock()
  const backend = new BreakableBackend({ ...options, clock })
  const counters = new Counters()
  const outbox = new EventOutbox(backend, counters, silentLogger)
  const take = async (channel: string, max = 10_000): Promise<Content[]> => {
    const messages = await backend.receive([channel], { max, waitMs: 0 })
    return messages.map(({ content }) => content)
  }
  return { clock, backend, counters, outbox, take }
}

describe('EventOutbox', () => {
  it('sends a client’s events in the order in which they happened', async () => {
    const { outbox, clock, take } = newOutbox()
    const client = new Client()

    outbox.add(client, 'connect', { n: 0 })
    outbox.add(client, 'receive', { n: 1 })
    outbox.add(client, 'receive', { n: 2 })
    outbox.add(client, 'disconnect', { n: 3 })
    await clock.advance(0)

    expect(await take('connect')).toEqual([{ n: 0 }])
    expect(await take('receive')).toEqual([{ n: 1 }, { n: 2 }])
    expect(await take('disconnect')).toEqual([{ n: 3 }])
    expect(client.isHeld).toBe(false)
  })

  it('sends the events of one turn in one batch', async () => {
    const { outbox, clock, backend } = newOutbox()
    let batches = 0
    const send = backend.send.bind(backend)
    backend.send = (messages) => {
      batches++
      return send(messages)
    }

    for (let n = 0; n < 100; n++) outbox.add(new Client(), 'receive', { n })
    await clock.advance(0)

    expect(batches).toBe(1)
  })

  describe('when a channel is full', () => {
    it('holds the client, and resumes it when its events are taken', async () => {
      const { outbox, clock, take, counters } = newOutbox({ capacity: 2 })
      const client = new Client()
      for (let n = 0; n < 5; n++) outbox.add(client, 'receive', { n })

      await clock.advance(0)
      expect(client.isHeld).toBe(true)
      expect(counters.get('held.full')).toBeGreaterThan(0)
      const seen: Content[] = []
      while (client.isHeld) {
        seen.push(...(await take('receive')))
        await clock.advance(1_000)
      }
      seen.push(...(await take('receive')))

      expect(seen.map(({ n }) => n)).toEqual([0, 1, 2, 3, 4])
      expect(client.isHeld).toBe(false)
    })

    it('lets no later event of that client overtake, whatever its channel', async () => {
      const { outbox, clock, take } = newOutbox({ channelCapacity: [['receive', 1]] })
      const client = new Client()
      outbox.add(client, 'receive', { n: 0 })
      outbox.add(client, 'receive', { n: 1 })
      outbox.add(client, 'disconnect', { n: 2 })

      await clock.advance(5_000)
      expect(await take('disconnect')).toEqual([])
      expect(await take('receive')).toEqual([{ n: 0 }])
      await clock.advance(5_000)

      expect(await take('receive')).toEqual([{ n: 1 }])
      expect(await take('disconnect')).toEqual([{ n: 2 }])
    })

    it('lets other clients go on', async () => {
      const { outbox, clock, take } = newOutbox({ channelCapacity: [['receive', 1]] })
      const [slow, other] = [new Client(), new Client()]
      outbox.add(slow, 'receive', { n: 0 })
      outbox.add(slow, 'receive', { n: 1 })
      await clock.advance(0)

      outbox.add(other, 'connect', { n: 2 })
      await clock.advance(0)

      expect(await take('connect')).toEqual([{ n: 2 }])
      expect([slow.isHeld, other.isHeld]).toEqual([true, false])
    })
  })

  it('holds a client that is far ahead of the backend', async () => {
    const { outbox, clock, take } = newOutbox()
    const client = new Client()

    for (let n = 0; n < 64; n++) outbox.add(client, 'receive', { n })
    expect(client.isHeld).toBe(false)
    outbox.add(client, 'receive', { n: 64 })
    expect(client.isHeld).toBe(true)
    await clock.advance(0)

    expect(client.isHeld).toBe(false)
    expect(await take('receive')).toHaveLength(65)
  })

  it('keeps everything while the backend is away, and sends it in order when it is back', async () => {
    const { outbox, clock, backend, take } = newOutbox()
    const client = new Client()
    backend.breaks()
    outbox.add(client, 'connect', { n: 0 })
    outbox.add(client, 'receive', { n: 1 })
    await clock.advance(30_000)
    expect(client.isHeld).toBe(true)
    outbox.add(client, 'receive', { n: 2 })

    backend.mends()
    await clock.advance(1_000)

    expect(await take('connect')).toEqual([{ n: 0 }])
    expect(await take('receive')).toEqual([{ n: 1 }, { n: 2 }])
    expect(client.isHeld).toBe(false)
  })

  it('tells the client of an event that no backend would take, and goes on', async () => {
    const { outbox, clock, counters, take } = newOutbox({ maxContentBytes: 100 })
    const [client, other] = [new Client(), new Client()]

    outbox.add(other, 'receive', { n: 0 })
    outbox.add(client, 'receive', { text: 'x'.repeat(200) })
    outbox.add(client, 'receive', { n: 1 })
    await clock.advance(0)

    expect(client.refused).toMatchObject([{ code: 'ERR_CONTENT_TOO_LARGE' }])
    expect(other.refused).toEqual([])
    expect(await take('receive')).toEqual([{ n: 0 }, { n: 1 }])
    expect(counters.get('dropped.refused')).toBe(1)
  })

  it('sends the same batch with its mark again, since it may be stored already', async () => {
    const { outbox, backend, clock, take } = newOutbox()
    const client = new Client()
    backend.losesNextReply()
    outbox.add(client, 'receive', { n: 1 })
    await clock.advance(0)
    expect(client.isHeld).toBe(true)
    outbox.add(client, 'receive', { n: 2 })
    outbox.add(new Client(), 'receive', { n: 3 })

    await clock.advance(1_000)

    expect(await take('receive')).toEqual([{ n: 1 }, { n: 3 }, { n: 2 }])
    expect(client.isHeld).toBe(false)
  })

  it('drops what its backend can vouch for no more, and goes on with what was not sent', async () => {
    const { outbox, backend, clock, counters, take } = newOutbox()
    const client = new Client()
    backend.breaks()
    outbox.add(client, 'receive', { n: 1 })
    await clock.advance(0)
    outbox.add(client, 'receive', { n: 2 })
    const send = backend.send.bind(backend)
    backend.send = async () => {
      backend.send = send
      throw new ChannelkitError('ERR_BATCH_IN_DOUBT', 'it may be stored')
    }
    backend.mends()

    await clock.advance(1_000)

    expect(await take('receive')).toEqual([{ n: 2 }])
    expect(counters.get('dropped.in-doubt')).toBe(1)
    expect(client.isHeld).toBe(false)
  })

  it('loses, doubles and reorders nothing, however full and however often away', async () => {
    const scenario = fc.record({
      capacity: fc.integer({ min: 1, max: 5 }),
      // One step: a client's event, a taking of some messages, or the backend going and coming.
      steps: fc.array(
        fc.oneof(
          { weight: 6, arbitrary: fc.record({ client: fc.nat(3), channel: fc.nat(1) }) },
          { weight: 3, arbitrary: fc.record({ take: fc.integer({ min: 1, max: 4 }) }) },
          { weight: 1, arbitrary: fc.record({ losesReply: fc.boolean() }) },
        ),
        { maxLength: 60 },
      ),
    })
    await fc.assert(
      fc.asyncProperty(scenario, async ({ capacity, steps }) => {
        const { outbox, clock, backend, take } = newOutbox({ capacity, expiryMs: 1_000_000_000 })
        const clients = Array.from({ length: 4 }, () => new Client())
        const added: string[][] = [[], [], [], []]
        const seen: string[][] = [[], [], [], []]
        let isAway = false
        const takeSome = async (max: number) => {
          if (isAway) return
          for (const channel of ['a', 'b']) {
            for (const { client, id } of await take(channel, max)) {
              seen[client as number]?.push(`${channel}${id}`)
            }
          }
        }

        let id = 0
        for (const step of steps) {
          if ('client' in step) {
            const channel = step.channel === 0 ? 'a' : 'b'
            outbox.add(clients[step.client] as Client, channel, { client: step.client, id })
            added[step.client]?.push(`${channel}${id++}`)
          } else if ('take' in step) {
            await takeSome(step.take)
          } else {
            if (step.losesReply) backend.losesNextReply()
            if (isAway) backend.mends()
            else if (!step.losesReply) backend.breaks()
            isAway = !isAway && !step.losesReply
          }
          await clock.advance(10)
        }
        if (isAway) backend.mends()
        isAway = false
        for (let round = 0; round < 200; round++) {
          await takeSome(100)
          await clock.advance(500)
          if (clients.every(({ isHeld }) => !isHeld)) break
        }
        await takeSome(100)

        const byChannel = (list: string[][], channel: string) =>
          list.map((ids) => ids.filter((each) => each.startsWith(channel)))
        expect(byChannel(seen, 'a')).toEqual(byChannel(added, 'a'))
        expect(byChannel(seen, 'b')).toEqual(byChannel(added, 'b'))
      }),
      { numRuns: 100 },
    )
  })

  describe('.drained()', () => {
    it('resolves at once when nothing waits', async () => {
      await newOutbox().outbox.drained()
    })

    it('resolves when everything is with the backend', async () => {
      const { outbox, clock, take } = newOutbox({ capacity: 1 })
      outbox.add(new Client(), 'receive', { n: 0 })
      outbox.add(new Client(), 'receive', { n: 1 })
      let isDrained = false
      const drained = outbox.drained().then(() => {
        isDrained = true
      })

      await clock.advance(2_000)
      expect(isDrained).toBe(false)
      await take('receive')
      await clock.advance(2_000)

      await drained
      expect(await take('receive')).toEqual([{ n: 1 }])
    })
  })

  describe('.close()', () => {
    it('counts what it gives up', async () => {
      const { outbox, clock, counters, take } = newOutbox({ capacity: 1 })
      const client = new Client()
      for (let n = 0; n < 3; n++) outbox.add(client, 'receive', { n })
      await clock.advance(0)

      const drained = outbox.drained()
      outbox.close()
      await drained
      await clock.advance(10_000)

      expect(counters.get('dropped.shutdown')).toBe(2)
      expect(await take('receive')).toEqual([{ n: 0 }])
    })
  })
})
