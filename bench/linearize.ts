/**
 * What `linearize` costs, and whether it holds: `node --import tsx bench/linearize.ts`.
 *
 * - CPU time per message of a worker with and without it, on memory and on SQLite, of 500 clients
 *   with one message each in flight, and with twenty.
 * - 100,000 messages of 500 clients over four worker processes on SQLite that are killed with
 *   SIGKILL and restarted, with and without it: messages per second, and how many ran beside
 *   another of their client, out of order, twice, or never.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type { ChannelBackend } from '../src/backends/channel-backend.ts'
import { MemoryBackend } from '../src/backends/memory/memory-backend.ts'
import { SqliteBackend } from '../src/backends/sql/sqlite.ts'
import type { Message } from '../src/message.ts'
import { Worker } from '../src/worker.ts'
import { linearize } from '../src/wrappers/linearize.ts'

const clientCount = 500
const leaseMs = 2_000
const script = fileURLToPath(new URL('../test/support/linearize-process.ts', import.meta.url))
const clients = Array.from({ length: clientCount }, (_, index) => `client${index}`)
const directory = mkdtempSync(join(tmpdir(), 'channelkit-bench-'))

try {
  for (const inFlight of [1, 20]) {
    for (const backendName of ['memory', 'SQLite']) {
      const rounds = backendName === 'memory' ? 200 : 40
      const [plain, linearized] = [[], []] as [number[], number[]]
      for (let repeat = 0; repeat < 3; repeat++) {
        plain.push(await oneProcess(backendName, false, inFlight, rounds))
        linearized.push(await oneProcess(backendName, true, inFlight, rounds))
      }
      const [a, b] = [median(plain), median(linearized)]
      console.log(
        `${backendName}, ${inFlight} in flight for each client: ${a.toFixed(1)} µs CPU per message plain, ${b.toFixed(1)} linearized, ${(b / a).toFixed(2)} times`,
      )
    }
  }
  for (const mode of ['plain', 'linearized'] as const) await fleet(mode)
} finally {
  rmSync(directory, { recursive: true })
}

/** CPU microseconds of sending a message, running an empty consumer on it, and all between. */
async function oneProcess(
  backendName: string,
  isLinearized: boolean,
  inFlight: number,
  rounds: number,
): Promise<number> {
  const options = { capacity: 1_000_000 }
  const backend: ChannelBackend =
    backendName === 'memory'
      ? new MemoryBackend(options)
      : new SqliteBackend({ ...options, file: join(directory, `${Math.random()}.db`) })
  let left = 0
  let onDone = (): void => {}
  const work = async (_message: Message): Promise<void> => {
    await Promise.resolve()
    left--
    if (left === 0) onDone()
  }
  const worker = new Worker({
    backend,
    routing: new Map([['receive', isLinearized ? linearize(work) : work]]),
  })
  await worker.start()
  const round = async (): Promise<void> => {
    left = clientCount * inFlight
    const done = new Promise<void>((resolve) => {
      onDone = resolve
    })
    const messages = Array.from({ length: left }, (_, index) => ({
      channel: 'receive',
      content: { content: 'hello', path: '/', reply_channel: clients[index % clientCount] ?? '' },
    }))
    await backend.send(messages)
    await done
  }
  for (let warm = 0; warm < 5; warm++) await round()
  const measured = Math.ceil(rounds / inFlight)
  const begin = process.cpuUsage()
  for (let count = 0; count < measured; count++) await round()
  const { user, system } = process.cpuUsage(begin)
  await worker.stop()
  await backend.close()
  return (user + system) / (measured * clientCount * inFlight)
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN
}

async function fleet(mode: 'plain' | 'linearized'): Promise<void> {
  const file = join(directory, `${mode}.db`)
  const log = join(directory, `${mode}.log`)
  const perClient = 200
  const backend = new SqliteBackend({ file, capacity: 200_000 })
  await backend.open()
  const startWorker = async (): Promise<ChildProcess> => {
    const child = fork(script, [file, log, `${leaseMs}`, mode], { execArgv: ['--import', 'tsx'] })
    await once(child, 'message')
    return child
  }
  const workers = await Promise.all(Array.from({ length: 4 }, startWorker))
  const killed = new Set<number>()
  let isOver = false
  const killing = (async () => {
    for (let turn = 0; !isOver; turn++) {
      await sleep(500)
      if (isOver) return
      const victim = workers[turn % 4] as ChildProcess
      killed.add(victim.pid ?? 0)
      victim.kill('SIGKILL')
      workers[turn % 4] = await startWorker()
    }
  })()
  const startedAt = performance.now()
  for (let n = 1; n <= perClient; n++) {
    const channel = ['connect', 'receive', 'disconnect'][n % 3] as string
    const batch = clients.map((client) => ({ channel, content: { n, reply_channel: client } }))
    let again = batch
    while (again.length > 0) {
      const failures = await backend.send(again)
      again = failures.map(({ index }) => again[index] as (typeof batch)[number])
      if (again.length > 0) await sleep(20)
    }
  }
  while ((await backend.channels()).length > 0) await sleep(100)
  const seconds = (performance.now() - startedAt) / 1_000
  isOver = true
  await killing
  await sleep(leaseMs + 500)
  for (const worker of workers) {
    const exited = once(worker, 'exit')
    worker.kill('SIGTERM')
    await exited
  }
  await backend.close()
  const found = judged(readFileSync(log, 'utf8'), killed)
  const total = clientCount * perClient
  console.log(
    `four processes, ${mode}: ${Math.round(total / seconds).toLocaleString('en')} messages/s; ${killed.size} SIGKILLs; ${found.overlaps} overlaps, ${found.reordered} reordered, ${found.twice} twice, ${total - found.ended} lost (${total - found.begun} before they began)`,
  )
}

function judged(text: string, killed: ReadonlySet<number>) {
  const running = new Map<string, Map<string, number>>()
  const last = new Map<string, number>()
  const seen = new Set<string>()
  const counts = { overlaps: 0, reordered: 0, twice: 0, begun: 0, ended: 0 }
  for (const line of text.split('\n').slice(0, -1)) {
    const [what, client = '', n = '', pid] = line.split(' ')
    const beside = running.get(client) ?? new Map<string, number>()
    running.set(client, beside)
    if (what !== 'begin') {
      beside.delete(n)
      counts.ended++
      continue
    }
    for (const other of beside.values()) if (!killed.has(other)) counts.overlaps++
    beside.set(n, Number(pid))
    if (seen.has(`${client} ${n}`)) counts.twice++
    else counts.begun++
    seen.add(`${client} ${n}`)
    if (Number(n) < (last.get(client) ?? 0)) counts.reordered++
    last.set(client, Number(n))
  }
  return counts
}
