/**
 * Measures the SQLite backend: one process in batches, an echo between two processes in batches and
 * one at a time, and what an idle system costs.
 *
 *     node --import tsx bench/sqlite-hop.ts
 *
 * A hop is one send and one receive; an echo has two. Figures differ up to twofold between runs.
 */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { SqliteBackend } from '../src/backends/sql/sqlite.ts'
import type { Content } from '../src/content.ts'

const forever = Number.POSITIVE_INFINITY
const text = 'x'.repeat(60)

type Role = 'echo' | 'idle-worker' | 'idle-inbox'

const [role, file = ''] = process.argv.slice(2) as [Role | undefined, string | undefined]
if (role === undefined) await measure()
else await play(role)

async function play(name: Role): Promise<void> {
  const backend = new SqliteBackend({ file, capacity: 100_000, inboxCapacity: 100_000 })
  await backend.open()
  process.on('message', (message) => {
    if (message === 'usage') process.send?.(process.cpuUsage())
    else void backend.close().then(() => process.disconnect())
  })
  process.send?.('ready')
  if (name === 'echo') {
    while (true) {
      const messages = await backend
        .receive(['work'], { max: 100, waitMs: forever })
        .catch(() => [])
      if (messages.length === 0) return
      // Each reply is a call of its own, as consumers make them.
      void Promise.all(
        messages.map(({ content }) =>
          backend.send([{ channel: String(content.reply), content: { text: content.text } }]),
        ),
      ).catch(() => {})
    }
  }
  const inbox = name === 'idle-inbox' ? await backend.openInbox<string>() : undefined
  const options = { max: 100, waitMs: forever }
  await (inbox ? inbox.receive(options) : backend.receive(['work'], options)).catch(() => [])
}

async function measure(): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'channelkit-bench-'))
  try {
    await oneProcess(join(directory, 'one.db'))
    await echo(join(directory, 'echo.db'))
    await idle(join(directory, 'idle.db'))
  } finally {
    rmSync(directory, { recursive: true })
  }
}

async function oneProcess(path: string): Promise<void> {
  const backend = new SqliteBackend({ file: path, capacity: 100_000 })
  await backend.open()
  for (const batch of [1, 20, 100]) {
    const count = batch === 1 ? 4_000 : 40_000
    const begin = start()
    for (let sent = 0; sent < count; sent += batch) {
      await backend.send(messagesFor('work', batch))
      let left = batch
      while (left > 0) {
        left -= (await backend.receive(['work'], { max: left, waitMs: 0 })).length
      }
    }
    report(`one process, send and receive, batches of ${batch}`, count, begin, 0)
  }
  await backend.close()
}

async function echo(path: string): Promise<void> {
  const worker = await started('echo', path)
  const backend = new SqliteBackend({ file: path, capacity: 100_000, inboxCapacity: 100_000 })
  const inbox = await backend.openInbox<string>()
  const reply = inbox.newChannel('client')
  for (const inFlight of [1, 16, 200, 800]) {
    const count = inFlight === 1 ? 1_000 : inFlight === 16 ? 10_000 : 40_000
    await run(Math.min(count, 2_000))
    const before = await usageOf(worker)
    const begin = start()
    const delays = await run(count)
    const after = await usageOf(worker)
    const label = `two processes, echo, ${inFlight} in flight`
    delays.sort((a, b) => a - b)
    report(label, 2 * count, begin, microseconds(after) - microseconds(before))
    const shown = [0.5, 0.99].map((part) => delays[Math.floor(part * delays.length)]?.toFixed(2))
    console.log(`${' '.repeat(label.length)}  p50 ${shown[0]} ms, p99 ${shown[1]} ms`)

    async function run(messages: number): Promise<number[]> {
      const times: number[] = []
      const sentAt: number[] = []
      let sent = 0
      const sendOne = (): Promise<unknown> => {
        sent++
        sentAt.push(performance.now())
        return backend.send([{ channel: 'work', content: { text, reply } }])
      }
      void Promise.all(Array.from({ length: Math.min(inFlight, messages) }, sendOne))
      while (times.length < messages) {
        const deliveries = await inbox.receive({ max: 1_000, waitMs: forever })
        const now = performance.now()
        for (const _delivery of deliveries) {
          times.push(now - (sentAt[times.length] as number))
          if (sent < messages) void sendOne()
        }
      }
      return times
    }
  }
  await stopped(worker)
  await backend.close()
}

async function idle(path: string): Promise<void> {
  const roles: readonly Role[] = ['idle-inbox', 'idle-inbox', 'idle-worker', 'idle-worker']
  const processes: Child[] = []
  for (const name of roles) processes.push(await started(name, path))
  // By then V8 has collected what starting left behind, 80 ms of work.
  await sleep(15_000)
  const total = async () =>
    (await Promise.all(processes.map(usageOf))).reduce((sum, usage) => sum + microseconds(usage), 0)
  const before = await total()
  await sleep(10_000)
  const used = (await total()) - before
  console.log(`idle, two inboxes and two workers: ${(used / 100_000).toFixed(2)} % of a core`)
  await Promise.all(processes.map(stopped))
}

function messagesFor(channel: string, count: number): { channel: string; content: Content }[] {
  return Array.from({ length: count }, (_, number) => ({ channel, content: { text, number } }))
}

type Child = ReturnType<typeof fork>

async function started(name: Role, path: string): Promise<Child> {
  const child = fork(fileURLToPath(import.meta.url), [name, path], {
    execArgv: ['--import', 'tsx'],
  })
  await once(child, 'message')
  return child
}

async function stopped(child: Child): Promise<void> {
  const exit = once(child, 'exit')
  child.send('stop')
  await exit
}

async function usageOf(child: Child): Promise<NodeJS.CpuUsage> {
  const answer = once(child, 'message')
  child.send('usage')
  const [usage] = (await answer) as [NodeJS.CpuUsage]
  return usage
}

function microseconds({ user, system }: NodeJS.CpuUsage): number {
  return user + system
}

function start(): { readonly at: number; readonly usage: NodeJS.CpuUsage } {
  return { at: performance.now(), usage: process.cpuUsage() }
}

function report(label: string, hops: number, begin: ReturnType<typeof start>, othersUs: number) {
  const seconds = (performance.now() - begin.at) / 1_000
  const cpuUs = microseconds(process.cpuUsage(begin.usage)) + othersUs
  const rate = Math.round(hops / seconds).toLocaleString('en')
  console.log(`${label}: ${rate} messages/s, ${(cpuUs / hops).toFixed(1)} µs CPU per message`)
}
