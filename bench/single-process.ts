// One process on the memory backend beside a bare ws server and Socket.IO: see bench/README.md.
// node --import tsx bench/single-process.ts [rounds] [seconds] [idle sockets]
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
import { MeasuredServer } from './measured-server.ts'

const rounds = Number(process.argv[2] ?? 3)
const durationMs = Number(process.argv[3] ?? 3) * 1_000
const idleCount = Number(process.argv[4] ?? 5_000)

const targets: readonly { name: string; dialect: Dialect }[] = [
  { name: 'bare-ws', dialect: plain },
  { name: 'socket-io', dialect: socketIo },
  { name: 'channelkit-memory', dialect: plain },
]

interface Figure {
  readonly perSecond: number
  readonly cpuMicros: number
  readonly p50Ms: number
  readonly p99Ms: number
}

async function echo(target: (typeof targets)[number], inFlight: number): Promise<Figure> {
  const server = await MeasuredServer.start(target.name)
  const sockets = await openSockets(target.dialect, server.port, 50)
  await echoLoad(target.dialect, sockets, inFlight, 700)
  const before = await server.usage()
  const { messages, latenciesMs } = await echoLoad(target.dialect, sockets, inFlight, durationMs)
  const after = await server.usage()
  closeSockets(sockets)
  await server.stop()
  return {
    perSecond: messages / (durationMs / 1_000),
    cpuMicros: (after.cpuMicros - before.cpuMicros) / messages,
    p50Ms: percentile(latenciesMs, 0.5),
    p99Ms: percentile(latenciesMs, 0.99),
  }
}

async function group(target: (typeof targets)[number], inFlight: number): Promise<Figure> {
  const server = await MeasuredServer.start(target.name)
  const sockets = await openSockets(target.dialect, server.port, 1_000, true)
  await groupLoad(target.dialect, sockets, inFlight, 700)
  const before = await server.usage()
  const { deliveries, roundsMs } = await groupLoad(target.dialect, sockets, inFlight, durationMs)
  const after = await server.usage()
  closeSockets(sockets)
  await server.stop()
  return {
    perSecond: deliveries / (durationMs / 1_000),
    cpuMicros: (after.cpuMicros - before.cpuMicros) / deliveries,
    p50Ms: percentile(roundsMs, 0.5),
    p99Ms: percentile(roundsMs, 0.99),
  }
}

async function idleKilobytes(target: (typeof targets)[number]): Promise<number> {
  const server = await MeasuredServer.start(target.name)
  // The first sockets load code and grow the heap; they are not counted.
  const first = await openSockets(target.dialect, server.port, 200)
  const before = await server.usage('gc')
  const sockets = await openSockets(target.dialect, server.port, idleCount)
  await new Promise((resolve) => setTimeout(resolve, 500))
  const after = await server.usage('gc')
  closeSockets([...first, ...sockets])
  await server.stop()
  return (after.rssBytes - before.rssBytes) / idleCount / 1_024
}

async function compare(
  title: string,
  measure: (target: (typeof targets)[number]) => Promise<Figure>,
): Promise<void> {
  const figures = new Map<string, Figure[]>(targets.map(({ name }) => [name, []]))
  for (let round = 0; round < rounds; round++) {
    for (const target of targets) figures.get(target.name)?.push(await measure(target))
  }
  const base = median((figures.get('bare-ws') ?? []).map(({ cpuMicros }) => cpuMicros))
  console.log(`\n${title}`)
  for (const [name, list] of figures) {
    const cpuMicros = median(list.map((figure) => figure.cpuMicros))
    console.log(
      [
        name.padEnd(18),
        `${Math.round(median(list.map((figure) => figure.perSecond)))}/s`.padStart(11),
        `${cpuMicros.toFixed(1)} us CPU`.padStart(13),
        `x${(cpuMicros / base).toFixed(2)}`.padStart(7),
        `p50 ${median(list.map((figure) => figure.p50Ms)).toFixed(2)} ms`.padStart(14),
        `p99 ${median(list.map((figure) => figure.p99Ms)).toFixed(2)} ms`.padStart(14),
      ].join(' '),
    )
  }
}

await compare('echo, 50 sockets, 16 in flight each', (target) => echo(target, 16))
await compare('echo, 50 sockets, 1 in flight each', (target) => echo(target, 1))
await compare('group send to 1,000 sockets, 1 in flight', (target) => group(target, 1))
await compare('group send to 1,000 sockets, 4 in flight', (target) => group(target, 4))

console.log(`\nmemory per idle socket, ${idleCount} sockets`)
for (const target of targets) {
  const kilobytes: number[] = []
  for (let round = 0; round < Math.min(rounds, 2); round++)
    kilobytes.push(await idleKilobytes(target))
  console.log(`${target.name.padEnd(18)} ${median(kilobytes).toFixed(1)} KiB`)
}
