import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { WebSocket } from 'ws'
import { type Cli, createSiteFolder, type SiteFolder } from '../support/cli.ts'
import { RedisServer, startRedisCluster } from '../support/redis-server.ts'

const configOf = (backend: string): string => `
import { defineConfig, defineRouting } from 'channelkit'
export default defineConfig({
  channelBackends: {
    default: {
      backend: '${backend}',
      routing: defineRouting({
        'websocket.receive': async (message) => {
          // Long enough that a worker is always running some when it is killed.
          await new Promise((resolve) => setTimeout(resolve, 3))
          await message.replyChannel.send({ content: message.content.content })
        },
      }),
    },
  },
})
`

const socketCount = 200
const messagesPerSocket = 100

/** What became of every message that was sent. */
interface Tally {
  readonly received: Map<string, number>
  readonly closed: number[]
  readonly sockets: readonly WebSocket[]
}

async function openAll(ports: readonly string[]): Promise<Tally> {
  const tally: Tally = { received: new Map(), closed: [], sockets: [] }
  const sockets = Array.from({ length: socketCount }, (_, index) => {
    const socket = new WebSocket(`ws://127.0.0.1:${ports[index % ports.length]}/`)
    socket.on('message', (data) => {
      const id = String(data)
      tally.received.set(id, (tally.received.get(id) ?? 0) + 1)
    })
    socket.on('close', (code) => tally.closed.push(code))
    return socket
  })
  await Promise.all(sockets.map((socket) => once(socket, 'open')))
  return { ...tally, sockets }
}

/** Has every socket send its numbered messages, a few per turn, with `midway` run half way. */
async function sendAll({ sockets }: Tally, midway: () => void): Promise<void> {
  for (let number = 0; number < messagesPerSocket; number++) {
    for (const [index, socket] of sockets.entries()) socket.send(`${index}:${number}`)
    if (number === messagesPerSocket / 2) midway()
    if (number % 4 === 3) await sleep(5)
  }
}

/** Waits until everything has come, or nothing more comes. */
async function settled({ received }: Tally, expected: number): Promise<void> {
  for (let quietMs = 0, last = -1; received.size < expected && quietMs < 4_000; quietMs += 100) {
    if (received.size !== last) quietMs = 0
    last = received.size
    await sleep(100)
  }
}

function duplicates({ received }: Tally): number {
  return [...received.values()].filter((times) => times > 1).length
}

const places = [
  ['SQLite', async () => ({ url: 'sqlite:channels.sqlite', stop: async () => {} })],
  [
    'Redis',
    async () => {
      const server = await RedisServer.start()
      return { url: server.url, stop: () => server[Symbol.asyncDispose]() }
    },
  ],
  [
    'a Redis Cluster',
    async () => {
      const servers = await startRedisCluster()
      return {
        url: `redis+cluster://${servers.map(({ port }) => `127.0.0.1:${port}`).join(',')}`,
        stop: async () => {
          for (const server of servers) await server[Symbol.asyncDispose]()
        },
      }
    },
  ],
] as const

describe.each(places)(
  'a fleet of two interface servers and two workers on %s',
  (_name, startPlace) => {
    let place: { readonly url: string; readonly stop: () => Promise<void> }
    let site: SiteFolder
    let workers: Cli[]
    let ports: string[]

    beforeEach(async () => {
      place = await startPlace()
      site = await createSiteFolder({ 'channels.config.ts': configOf(place.url) })
      const servers = ['a', 'b'].map(() => site.start('runwsserver', '--port', '0'))
      workers = ['a', 'b'].map(() => site.start('runworker', '--concurrency', '50'))
      const urls = await Promise.all(servers.map((server) => server.url()))
      await Promise.all(workers.map((worker) => worker.started()))
      ports = urls.map((url) => new URL(url).port)
    })

    afterEach(async () => {
      await site.dispose()
      await place.stop()
    })

    it('answers each of 20,000 messages of 200 sockets exactly once', async () => {
      const tally = await openAll(ports)

      await sendAll(tally, () => {})
      await settled(tally, socketCount * messagesPerSocket)

      expect(tally.received.size).toBe(socketCount * messagesPerSocket)
      expect(duplicates(tally)).toBe(0)
      expect(tally.closed).toEqual([])
    })

    it('loses at most what a killed worker was running, doubles nothing and closes no socket', async () => {
      const tally = await openAll(ports)

      await sendAll(tally, () => workers[0]?.kill('SIGKILL'))
      await settled(tally, socketCount * messagesPerSocket)

      const lost = socketCount * messagesPerSocket - tally.received.size
      console.log(`a killed worker of concurrency 50: ${lost} of 20,000 messages lost`)
      expect(lost).toBeLessThanOrEqual(50)
      expect(duplicates(tally)).toBe(0)
      expect(tally.closed).toEqual([])
    })

    it('loses nothing when every worker is replaced, one after the other', async () => {
      const tally = await openAll(ports)

      await sendAll(tally, () => {
        for (const worker of workers) worker.kill('SIGTERM')
        site.start('runworker')
      })
      await settled(tally, socketCount * messagesPerSocket)

      expect(tally.received.size).toBe(socketCount * messagesPerSocket)
      expect(duplicates(tally)).toBe(0)
      expect(tally.closed).toEqual([])
      for (const worker of workers) expect((await worker.ended()).exitCode).toBe(0)
    })
  },
)
