import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type { ChannelBackend } from 'channelkit/backend'
import { SqliteSessionStore } from 'channelkit/sessions'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { openBackendUrl } from '../../src/backends/open-url.ts'
import { silentLogger } from '../../src/logger.ts'
import { SiteSessions } from '../../src/sessions/site-sessions.ts'
import { redisPlaces } from '../support/redis-places.ts'
import { type SqlPlace, sqlPlaces } from '../support/sql-places.ts'

const script = fileURLToPath(new URL('../support/linearize-process.ts', import.meta.url))
const leaseMs = 1_500

let directory: string
let place: SqlPlace
let url: string
let backend: ChannelBackend
let children: ChildProcess[]

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'channelkit-linearize-'))
  url = await place.newUrl()
  backend = await openBackendUrl(url, { root: directory })
  children = []
})

afterEach(async () => {
  for (const child of children) {
    if (child.exitCode !== null || child.signalCode !== null) continue
    const exited = once(child, 'exit')
    child.kill('SIGKILL')
    await exited
  }
  await backend.close()
  await rm(directory, { recursive: true })
})

async function startWorker(): Promise<ChildProcess> {
  const child = fork(script, [url, join(directory, 'log'), `${leaseMs}`], {
    execArgv: ['--import', 'tsx'],
  })
  children.push(child)
  await once(child, 'message')
  return child
}

interface Note {
  readonly what: string
  readonly client: string
  readonly n: number
  readonly pid: number
  readonly at: number
}

async function notes(): Promise<Note[]> {
  const text = await readFile(join(directory, 'log'), 'utf8').catch(() => '')
  return text
    .split('\n')
    .slice(0, -1)
    .map((line) => {
      const [what = '', client = '', n, pid, at] = line.split(' ')
      return { what, client, n: Number(n), pid: Number(pid), at: Number(at) }
    })
}

async function until(isReached: (all: Note[]) => boolean): Promise<Note[]> {
  for (const deadline = Date.now() + 60_000; ; ) {
    const all = await notes()
    if (isReached(all)) return all
    if (Date.now() > deadline) throw new Error(`not reached; ${all.length} notes`)
    await sleep(20)
  }
}

function send(client: string, ...events: readonly [n: number, ms?: number][]) {
  return backend.send(
    events.map(([n, ms]) => ({
      channel: ['connect', 'receive', 'disconnect'][n % 3] as string,
      content: { n, reply_channel: client, ...(ms !== undefined && { ms }) },
    })),
  )
}

/** Checks a history, of whose begun runs those by killed processes need not end. */
function check(all: readonly Note[], killed: ReadonlySet<number>): void {
  const running = new Map<string, Note>()
  const last = new Map<string, number>()
  for (const note of all) {
    const { what, client, n, pid } = note
    if (what !== 'begin') {
      running.delete(client)
      continue
    }
    const before = running.get(client)
    if (before) expect(killed, `${client} ${n} beside ${before.n}`).toContain(before.pid)
    expect(n, `${client} after ${last.get(client)} by ${pid}`).toBeGreaterThan(
      last.get(client) ?? 0,
    )
    running.set(client, note)
    last.set(client, n)
  }
}

const places = { ...sqlPlaces, ...redisPlaces }

describe.each(Object.keys(places))('linearize in several processes on %s', (name) => {
  beforeAll(async () => {
    place = (await places[name]?.()) as SqlPlace
  })

  afterAll(() => place[Symbol.asyncDispose]())

  it('goes on within the lease and a second when a worker is killed in a consumer', async () => {
    const workers = await Promise.all([startWorker(), startWorker(), startWorker()])
    await send('ada', [1, 20_000], [2], [3])
    const [first] = await until((all) => all.length >= 1)

    const victim = workers.find(({ pid }) => pid === first?.pid)
    victim?.kill('SIGKILL')
    const killedAt = Date.now()
    const all = await until((found) => found.some(({ what, n }) => what === 'end' && n === 3))

    const second = all.find(({ n }) => n === 2)
    expect((second?.at ?? 0) - killedAt).toBeLessThanOrEqual(leaseMs + 1_000)
    check(all, new Set([first?.pid ?? 0]))
  })

  it('lets a worker that was frozen past its lease neither go on nor run anything twice', async () => {
    const workers = await Promise.all([startWorker(), startWorker()])
    await send('ada', [1, 2_500], [2, 500], [3, 500], [4])
    const [first] = await until((all) => all.length >= 1)
    const frozen = workers.find(({ pid }) => pid === first?.pid)

    frozen?.kill('SIGSTOP')
    await until((all) => all.some(({ what, n }) => what === 'begin' && n === 2))
    frozen?.kill('SIGCONT')
    await until((all) => all.some(({ what, n }) => what === 'end' && n === 4))
    const all = await until((found) => found.some(({ what }) => what === 'lost'))

    const begun = all.filter(({ what }) => what === 'begin')
    expect(begun.map(({ n }) => n)).toEqual([1, 2, 3, 4])
    expect(all.filter(({ what }) => what === 'lost').map(({ n }) => n)).toEqual([1])
    check(
      all.filter(({ what }) => what !== 'lost'),
      new Set([first?.pid ?? 0]),
    )
  })

  it('takes nothing from a worker that was frozen past its lease: no session, no held send', async () => {
    const writer = fileURLToPath(new URL('../support/frozen-writer-process.ts', import.meta.url))
    const heard = new Map<ChildProcess, string[]>()
    const start = async (): Promise<ChildProcess> => {
      const child = fork(writer, [url, directory, `${leaseMs}`], { execArgv: ['--import', 'tsx'] })
      children.push(child)
      heard.set(child, [])
      child.on('message', (text) => heard.get(child)?.push(String(text)))
      await once(child, 'message')
      return child
    }
    const hears = async (child: ChildProcess, text: string): Promise<void> => {
      const deadline = Date.now() + 30_000
      while (!heard.get(child)?.includes(text)) {
        if (Date.now() > deadline) throw new Error(`${text} did not come: ${heard.get(child)}`)
        await sleep(10)
      }
    }
    const move = (n: number, ms: number) =>
      backend.send([{ channel: 'moves', content: { n, ms, reply_channel: 'inbox!ada' } }])
    const frozen = await start()
    await move(1, 1_000)
    await hears(frozen, 'begin 1')
    frozen.kill('SIGSTOP')
    const other = await start()
    await move(2, 0)
    await hears(other, 'end 2')
    await sleep(200)

    frozen.kill('SIGCONT')
    await hears(frozen, 'failed ERR_LOCK_LOST')

    const store = new SqliteSessionStore({ file: join(directory, 'sessions.db') })
    const session = { store, secret: 'shared by the processes of this test' }
    const sessions = new SiteSessions({ session, isProduction: false, logger: silentLogger })
    expect({ ...(await sessions.loadOfChannel('inbox!ada')) }).toEqual({ state: 2 })
    await store.close()
    const sent = await backend.receive(['out'], { max: 10, waitMs: 0 })
    expect(sent.map(({ content }) => content)).toEqual([{ n: 2 }])
    expect(heard.get(frozen)).toEqual(['ready', 'begin 1', 'end 1', 'failed ERR_LOCK_LOST'])
  })

  it('keeps order and exclusion under load while workers are killed, stopped and started', async () => {
    await Promise.all([startWorker(), startWorker(), startWorker(), startWorker()])
    const clients = Array.from({ length: 50 }, (_, index) => `client${index}`)
    const perClient = 60
    const killed = new Set<number>()
    for (let n = 1; n <= perClient; n++) {
      await backend.send(
        clients.map((client) => ({
          channel: ['connect', 'receive', 'disconnect'][n % 3] as string,
          content: { n, reply_channel: client, ...(n % 10 === 0 && { ms: 2 }) },
        })),
      )
      if (n % 20 === 0) {
        const victim = children[n / 20 - 1]
        if (n !== 40) killed.add(victim?.pid ?? 0)
        victim?.kill(n === 40 ? 'SIGTERM' : 'SIGKILL')
        await startWorker()
      }
    }
    while ((await backend.channels()).length > 0) await sleep(50)
    await until((all) =>
      clients.every((client) => all.some((each) => each.client === client && each.n === perClient)),
    )
    const all = await notes()

    check(all, killed)
    const begun = new Set(
      all.filter(({ what }) => what === 'begin').map(({ client, n }) => `${client} ${n}`),
    )
    const ended = all.filter(({ what }) => what === 'end').length
    // A killed worker loses at most what it ran, one message of each client.
    expect(clients.length * perClient - begun.size).toBeLessThanOrEqual(2 * clients.length)
    expect(clients.length * perClient - ended).toBeLessThanOrEqual(2 * clients.length)
  })
})
