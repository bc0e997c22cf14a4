import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { SqliteBackend } from 'channelkit/sqlite'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'

const script = fileURLToPath(new URL('../support/sqlite-process.ts', import.meta.url))

let directory: string
let file: string
let children: ChildProcess[]

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'channelkit-processes-'))
  file = join(directory, 'site.db')
  children = []
})

afterEach(async () => {
  for (const child of children) {
    if (child.exitCode !== null || child.signalCode !== null) continue
    const exited = once(child, 'exit')
    child.kill('SIGKILL')
    await exited
  }
  await rm(directory, { recursive: true })
})

function start(role: string, ...values: readonly number[]): ChildProcess {
  const child = fork(script, [role, file, ...values.map(String)], {
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

/** Waits until nothing has come for half a second. */
async function settled(received: readonly (readonly number[])[]): Promise<void> {
  let before: number
  do {
    before = received.flat().length
    await sleep(500)
  } while (received.flat().length > before)
}

describe('SqliteBackend in several processes', () => {
  it('gives each of 6,000 messages of two writers to exactly one of four readers', async () => {
    const received: number[][] = [[], [], [], []]
    const readers = await Promise.all(received.map(startReader))

    const writers = [start('writer', 0, 3_000), start('writer', 3_000, 6_000)]
    const codes = await Promise.all(writers.map(exitOf))
    await until(() => received.flat().length >= 6_000)
    await settled(received)
    for (const reader of readers) reader.send('stop')

    expect(codes).toEqual([0, 0])
    expect(await Promise.all(readers.map(exitOf))).toEqual([0, 0, 0, 0])
    const all = received.flat()
    expect(all.length).toBe(6_000)
    expect(new Set(all).size).toBe(6_000)
    // A slow machine may leave one reader without a turn, but then the test would show nothing.
    expect(received.filter((numbers) => numbers.length > 0).length).toBeGreaterThan(1)
  })

  it('delivers nothing twice when a reader is killed, and the others go on', async () => {
    const received: number[][] = [[], [], [], []]
    const readers = await Promise.all(received.map(startReader))

    const first = start('writer', 0, 3_000)
    // On a busy machine any one reader may come away with little.
    const busiest = () => received.findIndex((numbers) => numbers.length >= 200)
    await until(() => busiest() >= 0)
    const doomed = readers[busiest()] as ChildProcess
    const killed = exitOf(doomed)
    doomed.kill('SIGKILL')
    await killed
    const second = start('writer', 3_000, 6_000)
    const codes = await Promise.all([first, second].map(exitOf))
    const backend = new SqliteBackend({ file })
    while ((await backend.channels()).length > 0) await sleep(20)
    await backend.close()
    await settled(received)

    expect(codes).toEqual([0, 0])
    const all = received.flat()
    expect(new Set(all).size).toBe(all.length)
    // All that was sent after the kill is for the others.
    expect(all.filter((number) => number >= 3_000).length).toBe(3_000)
    // What the killed reader had taken and not told: one batch, and one told on a closing pipe.
    expect(6_000 - all.length).toBeLessThanOrEqual(40)
  })

  it('waits out another process that holds the database for 2 s, without blocking its own', async () => {
    const backend = new SqliteBackend({ file })
    await backend.open()
    const inbox = await backend.openInbox<string>()
    const reply = inbox.newChannel('client')
    const waiting = backend.receive(['work'], { max: 100, waitMs: 20_000 })
    const holder = start('holder', 2_000)
    await once(holder, 'message')
    const delay = monitorEventLoopDelay({ resolution: 5 })
    delay.enable()
    const startedAt = performance.now()

    const sends = Array.from({ length: 20 }, async (_, number) => {
      await sleep(number * 50)
      return backend.send([
        { channel: 'work', content: { number } },
        { channel: reply, content: { number } },
      ])
    })
    const failures = (await Promise.all(sends)).flat()
    const tookMs = performance.now() - startedAt
    delay.disable()
    const messages = [...(await waiting)]
    while (messages.length < 20) {
      messages.push(...(await backend.receive(['work'], { max: 100, waitMs: 1_000 })))
    }
    const deliveries = await inbox.receive({ max: 100, waitMs: 1_000 })
    await backend.close()

    expect(await exitOf(holder)).toBe(0)
    expect(failures).toEqual([])
    expect(tookMs).toBeGreaterThan(1_000)
    expect(delay.max / 1e6).toBeLessThan(100)
    expect(messages.map(({ content }) => content.number)).toEqual([...Array(20).keys()])
    expect(deliveries.length).toBe(20)
  })

  it('lets the process end after close', async () => {
    const received: number[] = []
    const reader = await startReader(received)
    const writer = start('writer', 0, 10)
    await exitOf(writer)
    await until(() => received.length === 10)

    reader.send('stop')

    expect(await exitOf(reader)).toBe(0)
    expect(received.length).toBe(10)
  })

  it('hears of a message within milliseconds, not at the next poll', async () => {
    const backend = new SqliteBackend({ file })
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
    await backend.close()

    delaysMs.sort((a, b) => a - b)
    expect(delaysMs[10]).toBeLessThan(50)
  })
})
