import { linearize, type Message, Worker } from 'channelkit'
import type { ChannelBackend } from 'channelkit/backend'
import { MemoryBackend, MemoryStore } from 'channelkit/memory'
import { FakeClock, type TestStore } from 'channelkit/testing'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createSqliteStore } from '../../support/sqlite-store.ts'

const leaseMs = 1_000
const channels = ['connect', 'receive', 'disconnect'] as const
const clients = ['ada', 'bob', 'cleo'] as const

type Step =
  | { readonly do: 'send'; readonly client: number; readonly channel: number; readonly by: number }
  | { readonly do: 'end' | 'throw'; readonly which: number }
  | { readonly do: 'start'; readonly consumes: number }
  | { readonly do: 'crash' | 'stop'; readonly which: number }
  | { readonly do: 'wait'; readonly ms: number }

const number = fc.nat({ max: 20 })
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant('send' as const),
      client: number,
      channel: number,
      by: number,
    }),
  },
  { weight: 6, arbitrary: fc.record({ do: fc.constantFrom('end', 'throw'), which: number }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('start' as const), consumes: number }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('crash', 'stop'), which: number }) },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constant('wait' as const), ms: fc.nat({ max: 1_500 }) }),
  },
)

/** What a worker consumes, of which one in three consumes only a part. */
const parts = [channels, channels, ['connect', 'disconnect'], ['receive']] as const

interface Run {
  readonly client: string
  readonly n: number
  readonly member: Member
  readonly finish: (error?: Error) => void
}

interface Member {
  readonly worker: Worker
  readonly backend: ChannelBackend
  isDead: boolean
}

/** Workers on one store, driven step by step, that checks each beginning of a consumer. */
class Fleet {
  readonly clock = new FakeClock()
  readonly begun = new Map<string, number[]>()
  readonly sent = new Map<string, number>()
  readonly faults: string[] = []
  readonly #store: TestStore
  readonly #senders: ChannelBackend[] = []
  #members: Member[] = []
  #running: Run[] = []

  constructor(store: TestStore) {
    this.#store = store
  }

  async open(): Promise<void> {
    for (let count = 0; count < 2; count++) this.#senders.push(await this.#backend())
    // Known from the beginning, as on a site whose workers have run for a while.
    const info = { kind: 'worker', host: 'here', pid: 1, startedAt: 0 } as const
    await this.#senders[0]?.announce({ ...info, id: 'known', channels, linearized: channels }, 1e9)
  }

  async run(steps: readonly Step[]): Promise<void> {
    for (const each of steps) {
      await this.#do(each)
      await this.#settle()
    }
  }

  /** Lets everything that was sent come to its end. */
  async finish(): Promise<void> {
    await this.#start(0)
    const total = [...this.sent.values()].reduce((sum, count) => sum + count, 0)
    const count = () => [...this.begun.values()].flat().length
    for (let round = 0; round < 200 && (count() < total || this.#running.length > 0); round++) {
      for (const run of this.#running.splice(0)) if (!run.member.isDead) run.finish()
      await this.clock.advance(leaseMs / 2)
      await this.#settle()
    }
    for (const { worker } of this.#members) await worker.stop()
  }

  async close(): Promise<void> {
    const backends = [...this.#senders, ...this.#members.map(({ backend }) => backend)]
    await Promise.allSettled(backends.map((backend) => backend.close()))
    await this.#store.dispose()
  }

  async #do(each: Step): Promise<void> {
    switch (each.do) {
      case 'send': {
        const client = clients[each.client % clients.length] as string
        const n = (this.sent.get(client) ?? 0) + 1
        this.sent.set(client, n)
        const channel = channels[each.channel % channels.length] as string
        const content = { n, reply_channel: client }
        await this.#senders[each.by % 2]?.send([{ channel, content }])
        break
      }
      case 'end':
      case 'throw': {
        const living = this.#running.filter(({ member }) => !member.isDead)
        const run = living[each.which % Math.max(1, living.length)]
        if (!run) break
        this.#running = this.#running.filter((other) => other !== run)
        run.finish(each.do === 'throw' ? new Error('thrown') : undefined)
        break
      }
      case 'start':
        if (this.#members.length < 4) await this.#start(each.consumes)
        break
      case 'crash': {
        const member = this.#members[each.which % Math.max(1, this.#members.length)]
        if (!member) break
        member.isDead = true
        this.#members = this.#members.filter((other) => other !== member)
        await member.backend.close()
        break
      }
      case 'stop': {
        const member = this.#members[each.which % Math.max(1, this.#members.length)]
        if (!member) break
        this.#members = this.#members.filter((other) => other !== member)
        this.#senders.push(member.backend)
        void member.worker.stop()
        break
      }
      case 'wait':
        await this.clock.advance(each.ms)
    }
  }

  async #start(consumes: number): Promise<void> {
    const backend = await this.#backend()
    const consumer = linearize(async (message: Message) => {
      const { n, reply_channel: client } = message.content as { n: number; reply_channel: string }
      this.#noteBegin(client, n, member)
      await new Promise<void>((resolve, reject) => {
        const finish = (error?: Error): void => (error ? reject(error) : resolve())
        this.#running.push({ client, n, member, finish })
      })
    })
    const consumed = parts[consumes % parts.length] ?? channels
    const worker = new Worker({
      backend,
      routing: new Map(consumed.map((channel) => [channel, consumer])),
      lineLeaseMs: leaseMs,
      concurrency: 5,
    })
    const member: Member = { worker, backend, isDead: false }
    this.#members.push(member)
    await worker.start()
  }

  #noteBegin(client: string, n: number, member: Member): void {
    const before = this.begun.get(client) ?? []
    if (before.includes(n)) this.faults.push(`${client} ${n} ran twice`)
    if (n < (before.at(-1) ?? 0)) this.faults.push(`${client} ${n} ran after ${before.at(-1)}`)
    const beside = this.#running.find((run) => run.client === client && !run.member.isDead)
    if (beside && !member.isDead) this.faults.push(`${client} ${n} ran beside ${beside.n}`)
    this.begun.set(client, [...before, n])
  }

  async #backend(): Promise<ChannelBackend> {
    return this.#store.open({ clock: this.clock, expiryMs: 1e9 })
  }

  async #settle(): Promise<void> {
    for (let turns = 0; turns < 12; turns++) await new Promise(setImmediate)
  }
}

const memoryStore = async (): Promise<TestStore> => {
  const store = new MemoryStore()
  return {
    open: async (options) => new MemoryBackend({ ...options, store }),
    dispose: async () => {},
  }
}

describe('linearize', () => {
  it.each([
    ['memory', memoryStore, 300],
    ['SQLite', createSqliteStore, 60],
  ] as const)(
    'keeps order and exclusion, and loses nothing, whatever workers on %s do and suffer',
    async (_name, createStore, numRuns) => {
      await fc.assert(
        fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 60 }), async (steps) => {
          const fleet = new Fleet(await createStore())
          try {
            await fleet.open()
            await fleet.run([{ do: 'start', consumes: 2 }, { do: 'start', consumes: 3 }, ...steps])
            await fleet.finish()

            expect(fleet.faults).toEqual([])
            for (const [client, count] of fleet.sent) {
              const all = Array.from({ length: count }, (_, index) => index + 1)
              expect(fleet.begun.get(client), client).toEqual(all)
            }
          } finally {
            await fleet.close()
          }
        }),
        { numRuns },
      )
    },
    60_000,
  )
})
