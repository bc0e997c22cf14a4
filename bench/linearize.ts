/**
 * What `linearize` costs, and whether it holds, with and without it:
 * `node --import tsx bench/linearize.ts [backend URL] [seconds]`.
 *
 * - CPU time per message of a process that sends to itself, on memory and on SQLite, of 500 clients
 *   with one message each in flight, and with twenty; of a backend URL with one, and only what this
 *   process uses.
 * - Echo of 500 sockets through one interface server and four worker processes: messages per
 *   second, CPU time of all five per message, and how many came back in another order.
 * - 100,000 messages of 500 clients over four worker processes that are killed with SIGKILL and
 *   restarted: messages per second, and how many ran beside another of their client, out of order,
 *   twice, or never.
 *
 * Default SQLite. What a backend URL leads to is emptied.
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
import { openBackendUrl } from '../src/backends/open-url.ts'
import { SqliteBackend } from '../src/backends/sql/sqlite.ts'
import type { Message } from '../src/message.ts'
import { Worker } from '../src/worker.ts'
import { linearize } from '../src/wrappers/linearize.ts'
import { closeSockets, numberedLoad, openSockets, plain as plainSockets } from './load.ts'
import { MeasuredServer } from './measured-server.ts'

const clientCount = 500
const leaseMs = 2_000
const script = fileURLToPath(new URL('../test/support/linearize-process.ts', import.meta.url))
const clients = Array.from({ length: clientCount }, (_, index) => `client${index}`)
const [givenUrl, seconds = '4'] = process.argv.slice(2)
const modes = ['plain', 'linearized'] as const
const directory = mkdtempSync(join(tmpdir(), 'channelkit-bench-'))

try {
  for (const inFlight of givenUrl === undefined ? [1, 20] : [1]) {
    for (const backendName of givenUrl === undefined
      ? ['memory', 'SQLite']
      : [protocolOf(givenUrl)]) {
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
  await echoes()
  for (const mode of modes) await fleet(mode)
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
    givenUrl !== undefined
      ? await openBackendUrl(givenUrl, { root: process.cwd() })
      : backendName === 'memory'
        ? new MemoryBackend(options)
        : new SqliteBackend({ ...options, file: join(directory, `${Math.random()}.db`) })
  if (givenUrl !== undefined) await backend.flush()
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

function protocolOf(url: string): string {
  return url.slice(0, url.indexOf(':'))
}

/** A backend of its own for each name, where the URL was not given. */
function urlOf(name: string): string {
  return givenUrl ?? `sqlite:${join(directory, `${name}.db`)}`
}

async function emptied(url: string): Promise<ChannelBackend> {
  const backend = await openBackendUrl(url, { root: process.cwd() })
  await backend.flush()
  return backend
}

async function echoes(): Promise<void> {
  const found = new Map<string, { perSecond: number; micros: number; disordered: number }[]>()
  for (let repeat = 0; repeat < 3; repeat++) {
    for (const mode of modes) {
      const url = urlOf(`echo-${mode}-${repeat}`)
      await (await emptied(url)).close()
      process.env.CHANNELS_URL = url
      process.env.LINEARIZED = mode === 'linearized' ? '1' : ''
      const server = await MeasuredServer.start('channelkit-interface')
      const names = Array.from({ length: 4 }, () => 'channelkit-worker')
      const workers = await Promise.all(names.map((name) => MeasuredServer.start(name)))
      const all = [server, ...workers]
      const cpuMicros = async (): Promise<number> => {
        const usages = await Promise.all(all.map((each) => each.usage()))
        return usages.reduce((sum, usage) => sum + usage.cpuMicros, 0)
      }
      await sleep(1_000)
      const sockets = await openSockets(plainSockets, server.port, clientCount)
      for (const inFlight of [1, 8]) {
        await numberedLoad(sockets, inFlight, 1_000)
        const before = await cpuMicros()
        const { messages, disordered } = await numberedLoad(
          sockets,
          inFlight,
          Number(seconds) * 1_000,
        )
        const micros = ((await cpuMicros()) - before) / messages
        const key = `${inFlight} in flight for each, ${mode}`
        const rounds = found.get(key) ?? []
        found.set(key, rounds)
        rounds.push({ perSecond: messages / Number(seconds), micros, disordered })
      }
      closeSockets(sockets)
      for (const each of all) await each.stop()
    }
  }
  for (const [key, rounds] of found) {
    const perSecond = Math.round(median(rounds.map((each) => each.perSecond)))
    const micros = median(rounds.map((each) => each.micros)).toFixed(1)
    const disordered = rounds.reduce((sum, each) => sum + each.disordered, 0)
    console.log(
      `echo, 500 sockets, four workers, ${key}: ${perSecond.toLocaleString('en')}/s, ${micros} µs CPU each in all, ${disordered} in another order`,
    )
  }
}

async function fleet(mode: 'plain' | 'linearized'): Promise<void> {
  const url = urlOf(mode)
  const log = join(directory, `${mode}.log`)
  const perClient = 200
  const backend = await emptied(url)
  const startWorker = async (): Promise<ChildProcess> => {
    const child = fork(script, [url, log, `${leaseMs}`, mode], { execArgv: ['--import', 'tsx'] })
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
  const took = (performance.now() - startedAt) / 1_000
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
    `four processes, ${mode}: ${Math.round(total / took).toLocaleString('en')} messages/s; ${killed.size} SIGKILLs; ${found.overlaps} overlaps, ${found.reordered} reordered, ${found.twice} twice, ${total - found.ended} lost (${total - found.begun} before they began)`,
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
