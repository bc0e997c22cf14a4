/**
 * Measures a backend: one process in batches, an echo between two processes in batches and one at
 * a time, and what an idle system costs.
 *
 *     node --import tsx bench/hop.ts [sqlite | postgres | mariadb | redis]
 *
 * Default SQLite. A database server is started for it, which waits for the disk at each commit. A hop
 * is one send and one receive; an echo has two. Figures differ up to twofold between runs.
 */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type { ChannelBackend } from '../src/backends/channel-backend.ts'
import { RedisBackend } from '../src/backends/redis/redis.ts'
import { MysqlBackend } from '../src/backends/sql/mysql.ts'
import { PostgresBackend } from '../src/backends/sql/postgres.ts'
import { SqliteBackend } from '../src/backends/sql/sqlite.ts'
import type { Content } from '../src/content.ts'
import {
  type StartedService,
  startMariadb,
  startPostgres,
  startRedis,
} from '../test/support/service-process.ts'
import { mysqlPlace, postgresPlace } from '../test/support/sql-places.ts'

const forever = Number.POSITIVE_INFINITY
const text = 'x'.repeat(60)

type Role = 'echo' | 'idle-worker' | 'idle-inbox'

/** Where this process's CPU time does not show: the database server's processes. */
let server: StartedService | undefined

const [first = 'sqlite', givenUrl] = process.argv.slice(2)
if (givenUrl === undefined) await measure()
else await play(first as Role, givenUrl)

function open(url: string): ChannelBackend {
  const limits = { capacity: 100_000, inboxCapacity: 100_000 }
  if (url.startsWith('postgres:')) return new PostgresBackend({ url, ...limits })
  if (url.startsWith('redis')) return new RedisBackend({ url, ...limits })
  if (url.startsWith('mariadb:')) return new MysqlBackend({ url, ...limits })
  return new SqliteBackend({ file: url.slice('sqlite:'.length), ...limits })
}

async function play(name: Role, url: string): Promise<void> {
  const backend = open(url)
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
  let files = 0
  let newUrl = async (): Promise<string> => `sqlite:${join(directory, `${++files}.db`)}`
  if (first === 'redis') {
    server = await startRedis()
    const { folder } = server
    newUrl = async () => `redis+unix://${join(folder, 'redis.sock')}?prefix=bench-${++files}:`
  } else if (first !== 'sqlite') {
    server = first === 'postgres' ? await startPostgres(true) : await startMariadb(true)
    const place = first === 'postgres' ? postgresPlace(server) : mysqlPlace(server)
    newUrl = () => place.newUrl()
  }
  try {
    await oneProcess(await newUrl())
    await echo(await newUrl())
    await idle(await newUrl())
  } finally {
    await server?.[Symbol.asyncDispose]()
    rmSync(directory, { recursive: true })
  }
}

async function oneProcess(url: string): Promise<void> {
  const backend = open(url)
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

async function echo(url: string): Promise<void> {
  const worker = await started('echo', url)
  const backend = open(url)
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

async function idle(url: string): Promise<void> {
  const roles: readonly Role[] = ['idle-inbox', 'idle-inbox', 'idle-worker', 'idle-worker']
  const processes: Child[] = []
  for (const name of roles) processes.push(await started(name, url))
  // By then V8 has collected what starting left behind, 80 ms of work.
  await sleep(15_000)
  const total = async () =>
    (await Promise.all(processes.map(usageOf))).reduce((sum, usage) => sum + microseconds(usage), 0)
  const [before, serverBefore] = [await total(), serverUs()]
  await sleep(10_000)
  const used = (await total()) - before
  const serverUsed = server
    ? `, server ${((serverUs() - serverBefore) / 100_000).toFixed(2)} %`
    : ''
  console.log(
    `idle, two inboxes and two workers: ${(used / 100_000).toFixed(2)} % of a core${serverUsed}`,
  )
  await Promise.all(processes.map(stopped))
}

function messagesFor(channel: string, count: number): { channel: string; content: Content }[] {
  return Array.from({ length: count }, (_, number) => ({ channel, content: { text, number } }))
}

type Child = ReturnType<typeof fork>

async function started(name: Role, url: string): Promise<Child> {
  const child = fork(fileURLToPath(import.meta.url), [name, url], {
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

interface Begin {
  readonly at: number
  readonly usage: NodeJS.CpuUsage
  readonly serverUs: number
}

function start(): Begin {
  return { at: performance.now(), usage: process.cpuUsage(), serverUs: serverUs() }
}

function report(label: string, hops: number, begin: Begin, othersUs: number) {
  const seconds = (performance.now() - begin.at) / 1_000
  const cpuUs = microseconds(process.cpuUsage(begin.usage)) + othersUs
  const rate = Math.round(hops / seconds).toLocaleString('en')
  const atServer = server
    ? `, ${((serverUs() - begin.serverUs) / hops).toFixed(1)} in the server`
    : ''
  console.log(
    `${label}: ${rate} messages/s, ${(cpuUs / hops).toFixed(1)} µs CPU per message${atServer}`,
  )
}

/** CPU time of the server and its children, in microseconds, as Linux counts it in 10 ms. */
function serverUs(): number {
  if (!server) return 0
  let ticks = 0
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? []
      if (Number(pid) !== server.pid && Number(fields[1]) !== server.pid) continue
      ticks += Number(fields[11]) + Number(fields[12])
      // What has ended counts with the first process.
      if (Number(pid) === server.pid) ticks += Number(fields[13]) + Number(fields[14])
    } catch {
      // It has just ended.
    }
  }
  return ticks * 10_000
}
