// Two interface servers and two workers as processes of their own: see bench/README.md.
// node --import tsx bench/fleet.ts [sqlite | postgres | mariadb | redis | backend URL] [seconds]
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startMariadb, startPostgres, startRedis } from '../test/support/service-process.ts'
import { mysqlPlace, postgresPlace } from '../test/support/sql-places.ts'
import { closeSockets, echoLoad, groupLoad, openSockets, percentile, plain } from './load.ts'
import { MeasuredServer } from './measured-server.ts'

const folder = mkdtempSync(join(tmpdir(), 'channelkit-bench-'))
const [given = 'sqlite'] = process.argv.slice(2)
const service = await startService(given)
process.env.CHANNELS_URL = service?.url ?? (given === 'sqlite' ? sqliteUrl() : given)
const seconds = Number(process.argv[3] ?? 4)

const [first, second, ...workers] = [
  await MeasuredServer.start('channelkit-interface'),
  await MeasuredServer.start('channelkit-interface'),
  await MeasuredServer.start('channelkit-worker'),
  await MeasuredServer.start('channelkit-worker'),
] as const
const fleet = [first, second, ...workers]

async function cpuMicros(): Promise<number> {
  const usages = await Promise.all(fleet.map((server) => server.usage()))
  return usages.reduce((sum, usage) => sum + usage.cpuMicros, 0)
}

async function sleep(ms: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, ms))
}

console.log(`two interface servers, two workers on ${process.env.CHANNELS_URL.replace(folder, '')}`)

// Long enough for the compiler's threads to come to rest.
await sleep(12_000)
const idleFrom = await cpuMicros()
await sleep(20_000)
const idleMicros = (await cpuMicros()) - idleFrom
console.log(`idle: ${((idleMicros / 20_000_000) * 100).toFixed(2)} % of a core, all four together`)

const lone = await openSockets(plain, first.port, 1)
await echoLoad(plain, lone, 1, 500)
const { latenciesMs } = await echoLoad(plain, lone, 1, seconds * 1_000)
console.log(
  `echo, one socket, one in flight: p50 ${percentile(latenciesMs, 0.5).toFixed(2)} ms, p99 ${percentile(latenciesMs, 0.99).toFixed(2)} ms`,
)
closeSockets(lone)

for (const inFlight of [1, 16]) {
  const sockets = [
    ...(await openSockets(plain, first.port, 25)),
    ...(await openSockets(plain, second.port, 25)),
  ]
  await echoLoad(plain, sockets, inFlight, 500)
  const before = await cpuMicros()
  const { messages, latenciesMs: waits } = await echoLoad(plain, sockets, inFlight, seconds * 1_000)
  const used = (await cpuMicros()) - before
  console.log(
    `echo, 50 sockets, ${inFlight} in flight: ${Math.round(messages / seconds)}/s, ${(used / messages).toFixed(1)} us CPU each in all, p50 ${percentile(waits, 0.5).toFixed(2)} ms, p99 ${percentile(waits, 0.99).toFixed(2)} ms`,
  )
  closeSockets(sockets)
}

const members = [
  ...(await openSockets(plain, first.port, 500, true)),
  ...(await openSockets(plain, second.port, 500, true)),
]
await sleep(500)
for (const inFlight of [1, 4]) {
  await groupLoad(plain, members, inFlight, 500)
  const before = await cpuMicros()
  const { deliveries, roundsMs } = await groupLoad(plain, members, inFlight, seconds * 1_000)
  const used = (await cpuMicros()) - before
  console.log(
    `group send to 1,000 sockets on two servers, ${inFlight} in flight: ${Math.round(deliveries / seconds)} deliveries/s, ${(used / deliveries).toFixed(1)} us CPU each, p50 ${percentile(roundsMs, 0.5).toFixed(1)} ms, p99 ${percentile(roundsMs, 0.99).toFixed(1)} ms`,
  )
}
closeSockets(members)

for (const server of fleet) await server.stop()
await service?.stop()
rmSync(folder, { recursive: true })

function sqliteUrl(): string {
  return `sqlite:${join(folder, 'channels.sqlite')}`
}

/** Starts the server that a word names. */
async function startService(
  name: string,
): Promise<{ readonly url: string; stop(): Promise<void> } | undefined> {
  if (!['postgres', 'mariadb', 'redis'].includes(name)) return undefined
  if (name === 'redis') {
    const server = await startRedis()
    const url = `redis+unix://${join(server.folder, 'redis.sock')}`
    return { url, stop: () => server[Symbol.asyncDispose]() }
  }
  const server = name === 'postgres' ? await startPostgres(true) : await startMariadb(true)
  const place = name === 'postgres' ? postgresPlace(server) : mysqlPlace(server)
  return { url: await place.newUrl(), stop: () => server[Symbol.asyncDispose]() }
}
