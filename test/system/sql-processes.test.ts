import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type { ChannelBackend } from 'channelkit/backend'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { isChannelkitError } from '../../src/errors.ts'
import { type StartedService, startMariadb, startPostgres } from '../support/service-process.ts'
import {
  mysqlPlace,
  openServerUrl,
  postgresPlace,
  type ServerOptions,
  type SqlPlace,
} from '../support/sql-places.ts'

const script = fileURLToPath(new URL('../support/channel-process.ts', import.meta.url))

const kinds = {
  PostgreSQL: {
    start: () => startPostgres(),
    place: postgresPlace,
    // Killed, an immediate shutdown, a fast one.
    signals: ['SIGKILL', 'SIGQUIT', 'SIGINT'],
  },
  MariaDB: {
    start: () => startMariadb(),
    place: mysqlPlace,
    signals: ['SIGKILL', 'SIGTERM'],
  },
} as const

let server: StartedService
let place: SqlPlace
let url: string
let children: ChildProcess[]
let opened: ChannelBackend[]

beforeEach(async () => {
  url = await place.newUrl()
  children = []
  opened = []
})

afterEach(async () => {
  for (const child of children) {
    if (child.exitCode !== null || child.signalCode !== null) continue
    const exited = once(child, 'exit')
    child.kill('SIGKILL')
    await exited
  }
  await Promise.all(opened.map((backend) => backend.close()))
})

function open(options: ServerOptions = {}): ChannelBackend {
  const backend = openServerUrl(url, options)
  opened.push(backend)
  return backend
}

function start(role: string, ...values: readonly number[]): ChildProcess {
  const child = fork(script, [role, url, ...values.map(String)], {
    execArgv: ['--import', 'tsx'],
  })
  children.push(child)
  return child
}

/** Starts a reader that adds what it receives to `received`. */
async function startReader(received: number[]): Promise<ChildProcess> {
  const child = start('reader')
  await once(child, 'message')
  child.on('message', (message: { readonly received?: readonly number[] }) => {
    received.push(...(message.received ?? []))
  })
  return child
}

async function exitOf(child: ChildProcess): Promise<unknown> {
  if (child.exitCode !== null || child.signalCode !== null) return child.exitCode
  const [code] = await once(child, 'exit')
  return code
}

async function until(isReached: () => boolean): Promise<void> {
  const deadline = performance.now() + 60_000
  while (!isReached() && performance.now() < deadline) await sleep(20)
}

async function codeOf(call: Promise<unknown>): Promise<string> {
  try {
    await call
    return 'done'
  } catch (error) {
    return isChannelkitError(error) ? error.code : String(error)
  }
}

describe.each(Object.keys(kinds) as (keyof typeof kinds)[])('%s in several processes', (name) => {
  beforeAll(async () => {
    server = await kinds[name].start()
    place = kinds[name].place(server)
  })

  afterAll(() => place[Symbol.asyncDispose]())

  it('has its tables made once by processes that start at the same time', async () => {
    const backends = Array.from({ length: 6 }, () => open())

    const outcomes = await Promise.all(
      backends.map((backend) => backend.send([{ channel: 'news', content: {} }])),
    )

    expect(outcomes.flat()).toEqual([])
    expect((await open().channels()).map(({ waiting }) => waiting)).toEqual([6])
  })

  it('gives each of 6,000 messages of two writers to exactly one of four readers, in order', async () => {
    const received: number[][] = [[], [], [], []]
    const readers = await Promise.all(received.map(startReader))

    const writers = [start('writer', 0, 3_000), start('writer', 3_000, 6_000)]
    const codes = await Promise.all(writers.map(exitOf))
    await until(() => received.flat().length >= 6_000)
    await sleep(500)
    for (const reader of readers) reader.send('stop')

    expect(codes).toEqual([0, 0])
    expect(await Promise.all(readers.map(exitOf))).toEqual([0, 0, 0, 0])
    const all = received.flat()
    expect(all.length).toBe(6_000)
    expect(new Set(all).size).toBe(6_000)
    for (const numbers of received) {
      for (const isOne of [
        (number: number) => number < 3_000 && number % 2 === 0,
        (number: number) => number < 3_000 && number % 2 === 1,
        (number: number) => number >= 3_000 && number % 2 === 0,
        (number: number) => number >= 3_000 && number % 2 === 1,
      ]) {
        const ofOne = numbers.filter(isOne)
        expect(ofOne).toEqual([...ofOne].sort((a, b) => a - b))
      }
    }
  })

  it('hears of a message in another process within milliseconds', async () => {
    const backend = open()
    const received: number[] = []
    await startReader(received)
    const delaysMs: number[] = []

    for (let number = 0; number < 20; number++) {
      await sleep(20)
      const sentAt = performance.now()
      await backend.send([{ channel: 'work', content: { number } }])
      while (received.length <= number) await sleep(1)
      delaysMs.push(performance.now() - sentAt)
    }

    delaysMs.sort((a, b) => a - b)
    expect(delaysMs[10]).toBeLessThan(60)
  })

  it.each(kinds[name].signals)(
    'rejects in bounded time and heals when its server gets %s and comes back',
    async (signal) => {
      const [sender, holder] = [open({ busyMs: 1_000 }), open({ busyMs: 1_000 })]
      const inbox = await holder.openInbox<string>({ renewal: 'auto' })
      await sender.groupAdd([{ group: 'chat', channel: inbox.newChannel('ada') }])
      await inbox.receive({ max: 10, waitMs: 1_000 })

      await server.stop(signal)
      const stoppedAt = performance.now()
      const codes = await Promise.all([
        codeOf(sender.send([{ channel: 'news', content: {} }])),
        codeOf(sender.groupSend([{ group: 'chat', content: {} }])),
        codeOf(holder.receive(['news'], { max: 1, waitMs: 0 })),
        codeOf(holder.channels()),
      ])
      const tookMs = performance.now() - stoppedAt
      await server.restart()

      expect(codes).toEqual(Array(4).fill('ERR_BACKEND_UNAVAILABLE'))
      expect(tookMs).toBeLessThan(15_000)
      await sender.groupSend([{ group: 'chat', content: { number: 1 } }])
      const deliveries = await inbox.receive({ max: 10, waitMs: 5_000 })
      expect(deliveries.map(({ content }) => content)).toEqual([{ number: 1 }])
      // Whoever waits is woken again, by a listener that has come back or by looking.
      const waiting = holder.receive(['news'], { max: 1, waitMs: 10_000 })
      await sleep(100)
      await sender.send([{ channel: 'news', content: { number: 2 } }])
      expect((await waiting).map(({ content }) => content)).toEqual([{ number: 2 }])
    },
  )

  it('stores each marked batch once though the server is killed again and again', async () => {
    const received: number[][] = [[]]
    await Promise.all(received.map(startReader))
    const writers = [start('writer', 0, 4_000), start('writer', 4_000, 8_000)]
    const exits = Promise.all(writers.map(exitOf))

    for (let kills = 1; kills <= 3; kills++) {
      await until(() => received.flat().length >= kills * 1_000)
      await server.stop('SIGKILL')
      await server.restart()
    }
    expect(await exits).toEqual([0, 0])
    const backend = open()
    while ((await backend.channels()).length > 0) await sleep(20)
    await sleep(500)

    const all = received.flat()
    expect(new Set(all).size).toBe(all.length)
    // A claim whose answer was lost with the server is not given again: at most a batch each time.
    expect(8_000 - all.length).toBeLessThanOrEqual(3 * 20)
  })
})
