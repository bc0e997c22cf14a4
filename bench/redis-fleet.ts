// Two servers on one Redis, beside the rivals on the same Redis: see bench/README.md.
// node --import tsx bench/redis-fleet.ts [rounds] [seconds] [idle sockets] [name,name,…]
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { redisCommand } from '../test/support/service-process.ts'
import {
  closeSockets,
  type Dialect,
  echoLoad,
  groupLoad,
  median,
  openSockets,
  percentile,
  plain,
  socketIo,
} from './load.ts'
import { type Measured, MeasuredServer } from './measured-server.ts'
import { RunningProcess } from './running-process.ts'

const rounds = Number(process.argv[2] ?? 3)
const durationMs = Number(process.argv[3] ?? 3) * 1_000
const idleCount = Number(process.argv[4] ?? 10_000)
const chosen = process.argv[5]?.split(',')

const folder = mkdtempSync(join(tmpdir(), 'channelkit-bench-'))

interface Fleet {
  readonly fronts: readonly Measured[]
  readonly others: readonly Measured[]
}

interface Rival {
  readonly name: string
  readonly dialect: Dialect
  start(redisUrl: string): Promise<Fleet>
}

const django = fileURLToPath(new URL('./django', import.meta.url))

async function both(start: (name: string) => Promise<Measured>): Promise<Measured[]> {
  return [await start('a'), await start('b')]
}

const rivals: readonly Rival[] = [
  {
    name: 'floor',
    dialect: plain,
    async start(url) {
      const fronts = await both((name) => MeasuredServer.start('floor', ['interface', url, name]))
      const others = await both(() => MeasuredServer.start('floor', ['worker', url]))
      return { fronts, others }
    },
  },
  {
    name: 'channelkit',
    dialect: plain,
    async start(url) {
      process.env.CHANNELS_URL = url
      const fronts = await both(() => MeasuredServer.start('channelkit-interface'))
      const others = await both(() => MeasuredServer.start('channelkit-worker'))
      return { fronts, others }
    },
  },
  {
    name: 'socket.io redis-adapter',
    dialect: socketIo,
    async start(url) {
      const fronts = await both(() => MeasuredServer.start('socket-io-redis', ['pubsub', url]))
      return { fronts, others: [] }
    },
  },
  {
    name: 'socket.io streams-adapter',
    dialect: socketIo,
    async start(url) {
      const fronts = await both(() => MeasuredServer.start('socket-io-redis', ['streams', url]))
      return { fronts, others: [] }
    },
  },
  {
    name: 'django channels',
    dialect: plain,
    async start(url) {
      const fronts = await both(() =>
        RunningProcess.start(
          '/usr/bin/python3',
          (port) => [
            '-m',
            'daphne',
            '--verbosity',
            '0',
            '-b',
            '127.0.0.1',
            '-p',
            String(port),
            'chat_site:application',
          ],
          { cwd: django, env: { BENCH_REDIS: url, PYTHONDONTWRITEBYTECODE: '1' } },
        ),
      )
      return { fronts, others: [] }
    },
  },
]

interface Figures {
  readonly loneP50Ms: number
  readonly loneP99Ms: number
  readonly echoPerSecond: number
  readonly echoMicros: number
  readonly groupPerSecond: number
  readonly groupMicros: number
  readonly groupFourPerSecond: number
  readonly groupFourMicros: number
}

async function measure(rival: Rival): Promise<Figures> {
  return running(rival, async ({ fronts }, cpuMicros) => {
    const [first, second] = fronts as [Measured, Measured]
    const { dialect } = rival

    const lone = await openSockets(dialect, first.port, 1)
    await echoLoad(dialect, lone, 1, 1_000)
    const { latenciesMs } = await echoLoad(dialect, lone, 1, durationMs)
    closeSockets(lone)

    const sockets = [
      ...(await openSockets(dialect, first.port, 25)),
      ...(await openSockets(dialect, second.port, 25)),
    ]
    await echoLoad(dialect, sockets, 16, 1_500)
    const beforeEcho = await cpuMicros()
    const echo = await echoLoad(dialect, sockets, 16, durationMs)
    const echoMicros = ((await cpuMicros()) - beforeEcho) / echo.messages
    closeSockets(sockets)

    const members = [
      ...(await openSockets(dialect, first.port, 500, true)),
      ...(await openSockets(dialect, second.port, 500, true)),
    ]
    await sleep(1_000)
    const group: { perSecond: number; micros: number }[] = []
    for (const inFlight of [1, 4]) {
      await groupLoad(dialect, members, inFlight, 1_000)
      const before = await cpuMicros()
      const startedAt = performance.now()
      const { deliveries } = await groupLoad(dialect, members, inFlight, durationMs)
      const seconds = (performance.now() - startedAt) / 1_000
      group.push({
        perSecond: deliveries / seconds,
        micros: ((await cpuMicros()) - before) / deliveries,
      })
    }
    closeSockets(members)
    return {
      loneP50Ms: percentile(latenciesMs, 0.5),
      loneP99Ms: percentile(latenciesMs, 0.99),
      echoPerSecond: echo.messages / (durationMs / 1_000),
      echoMicros,
      groupPerSecond: group[0]?.perSecond ?? Number.NaN,
      groupMicros: group[0]?.micros ?? Number.NaN,
      groupFourPerSecond: group[1]?.perSecond ?? Number.NaN,
      groupFourMicros: group[1]?.micros ?? Number.NaN,
    }
  })
}

/** Memory of each idle socket, and the CPU of all processes together while nothing happens. */
async function measureIdle(rival: Rival): Promise<{ kibPerSocket: number; cpuShare: number }> {
  return running(rival, async ({ fronts }, cpuMicros) => {
    const memory = async (): Promise<number> => {
      const usages = await Promise.all(fronts.map((each) => each.usage('gc')))
      return usages.reduce((sum, { rssBytes }) => sum + rssBytes, 0)
    }
    const openHalf = async (): Promise<Awaited<ReturnType<typeof openSockets>>> => {
      const sockets: Awaited<ReturnType<typeof openSockets>> = []
      for (const { port } of fronts) {
        sockets.push(...(await openSockets(rival.dialect, port, idleCount / 4, true)))
      }
      await sleep(5_000)
      return sockets
    }
    // The first half takes up what the start has left free in the heaps.
    const warm = await openHalf()
    const before = await memory()
    const sockets = await openHalf()
    const after = await memory()
    const idleFrom = await cpuMicros()
    await sleep(20_000)
    const idle = (await cpuMicros()) - idleFrom
    closeSockets([...warm, ...sockets])
    return { kibPerSocket: (after - before) / sockets.length / 1_024, cpuShare: idle / 20_000_000 }
  })
}

/** Runs a fleet on a Redis of its own, whose CPU counts too. */
async function running<T>(
  rival: Rival,
  work: (fleet: Fleet, cpuMicros: () => Promise<number>) => Promise<T>,
): Promise<T> {
  const redis = await RunningProcess.start(redisCommand, (port) => [
    '--port',
    String(port),
    '--bind',
    '127.0.0.1',
    '--save',
    '',
    '--appendonly',
    'no',
    '--dir',
    folder,
  ])
  let fleet: Fleet | undefined
  try {
    fleet = await rival.start(`redis://127.0.0.1:${redis.port}`)
    const { fronts, others } = fleet
    const all = [...fronts, ...others, redis]
    return await work(fleet, async () => {
      const usages = await Promise.all(all.map((each) => each.usage()))
      return usages.reduce((sum, { cpuMicros }) => sum + cpuMicros, 0)
    })
  } finally {
    for (const each of [...(fleet?.fronts ?? []), ...(fleet?.others ?? [])]) await each.stop()
    await redis.stop()
  }
}

async function sleep(ms: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, ms))
}

const taking = rivals.filter(({ name }) => !chosen || chosen.includes(name))
const figures = new Map<Rival, Figures[]>(taking.map((rival) => [rival, []]))
for (let round = 0; round < rounds; round++) {
  for (const rival of taking) figures.get(rival)?.push(await measure(rival))
}
for (const rival of rounds > 0 ? taking : []) {
  const of = (key: keyof Figures): number =>
    median((figures.get(rival) ?? []).map((each) => each[key]))
  console.log(
    [
      rival.name.padEnd(26),
      `lone echo p50 ${of('loneP50Ms').toFixed(2)} p99 ${of('loneP99Ms').toFixed(2)} ms`,
      `echo ${Math.round(of('echoPerSecond'))}/s ${of('echoMicros').toFixed(1)} us`,
      `group ${Math.round(of('groupPerSecond'))}/s ${of('groupMicros').toFixed(1)} us`,
      `four in flight ${Math.round(of('groupFourPerSecond'))}/s ${of('groupFourMicros').toFixed(1)} us`,
    ].join(' | '),
  )
}
if (idleCount > 0) {
  for (const rival of taking) {
    const { kibPerSocket, cpuShare } = await measureIdle(rival)
    console.log(
      `${rival.name.padEnd(26)} | ${idleCount} idle members: ${kibPerSocket.toFixed(1)} KiB each, ${(cpuShare * 100).toFixed(2)} % of a core in all`,
    )
  }
}
rmSync(folder, { recursive: true })
