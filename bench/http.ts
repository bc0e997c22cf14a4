// Hello-world over HTTP, directly and through Channelkit: see bench/README.md.
// node --import tsx bench/http.ts [rounds] [seconds] [app,app,…]
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { LoadRequest, LoadResult } from './http-load.ts'
import { median } from './load.ts'
import { MeasuredServer } from './measured-server.ts'

const rounds = Number(process.argv[2] ?? 3)
const durationMs = Number(process.argv[3] ?? 3) * 1_000
const apps = (process.argv[4] ?? 'node,hono,express,fastify').split(',')
const connections = 50

interface Figure extends LoadResult {
  readonly cpuMicros: number
}

interface Target {
  readonly name: string
  start(): Promise<{ readonly servers: readonly MeasuredServer[]; stop(): Promise<void> }>
}

function targetsOf(app: string): Target[] {
  return [
    {
      name: `${app} directly`,
      async start() {
        const server = await MeasuredServer.start('http-direct', [app])
        return { servers: [server], stop: () => server.stop() }
      },
    },
    {
      name: `${app} by memory`,
      async start() {
        const server = await MeasuredServer.start('http-channelkit', [app, 'memory:'])
        return { servers: [server], stop: () => server.stop() }
      },
    },
    {
      name: `${app} by SQLite, 2 processes`,
      async start() {
        const folder = await mkdtemp(join(tmpdir(), 'channelkit-bench-'))
        const url = `sqlite:${join(folder, 'channels.sqlite')}`
        const worker = await MeasuredServer.start('http-channelkit', [app, url, 'worker'])
        const server = await MeasuredServer.start('http-channelkit', [app, url, 'interface'])
        return {
          servers: [server, worker],
          async stop() {
            await server.stop()
            await worker.stop()
            await rm(folder, { recursive: true })
          },
        }
      },
    },
  ]
}

function startLoad(): ChildProcess {
  const file = fileURLToPath(new URL('./http-load.ts', import.meta.url))
  return fork(file, [], { execArgv: ['--import', 'tsx'] })
}

async function ask(load: ChildProcess, request: LoadRequest): Promise<LoadResult> {
  load.send(request)
  const [result] = (await once(load, 'message')) as [LoadResult]
  return result
}

async function measure(load: ChildProcess, target: Target, rate?: number): Promise<Figure> {
  const { servers, stop } = await target.start()
  const port = servers[0]?.port ?? 0
  const cpu = async (): Promise<number> => {
    const usages = await Promise.all(servers.map((server) => server.usage()))
    return usages.reduce((sum, { cpuMicros }) => sum + cpuMicros, 0)
  }
  await ask(load, { port, connections, durationMs: 1_500 })
  const before = await cpu()
  const result = await ask(load, { port, connections, durationMs, ...(rate && { rate }) })
  const after = await cpu()
  await stop()
  return { ...result, cpuMicros: (after - before) / result.requests }
}

const load = startLoad()
for (const app of apps) {
  const targets = targetsOf(app)
  const full = new Map<Target, Figure[]>(targets.map((target) => [target, []]))
  const half = new Map<Target, Figure[]>(targets.map((target) => [target, []]))
  for (let round = 0; round < rounds; round++) {
    for (const target of targets) full.get(target)?.push(await measure(load, target))
  }
  const rateOf = (target: Target): number =>
    median((full.get(target) ?? []).map(({ perSecond }) => perSecond))
  for (let round = 0; round < rounds; round++) {
    for (const target of targets) {
      half.get(target)?.push(await measure(load, target, rateOf(target) / 2))
    }
  }
  const base = rateOf(targets[0] as Target)
  for (const target of targets) {
    const of = (list: Map<Target, Figure[]>, key: keyof Figure): number =>
      median((list.get(target) ?? []).map((figure) => figure[key]))
    console.log(
      [
        target.name.padEnd(30),
        `${Math.round(rateOf(target))}/s`.padStart(9),
        `${Math.round((rateOf(target) / base) * 100)} %`.padStart(6),
        `${of(full, 'cpuMicros').toFixed(0)} us CPU`.padStart(11),
        `at half: p50 ${of(half, 'p50Ms').toFixed(2)} ms`.padStart(22),
        `p99 ${of(half, 'p99Ms').toFixed(2)} ms`.padStart(14),
      ].join(' '),
    )
  }
}
load.disconnect()
