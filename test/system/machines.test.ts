import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { RedisBackend } from 'channelkit/redis'
import { afterEach, describe, expect, it } from 'vitest'
import { WebSocket } from 'ws'
import { createSiteFolder, type SiteFolder } from '../support/cli.ts'
import { createMachines, type OwnNetwork } from '../support/network.ts'
import { RedisServer } from '../support/redis-server.ts'

const socketCount = 100
const concurrency = 20
const timeoutMs = 1_000

const configOf = (url: string): string => `
import { defineConfig, defineRouting, Group } from 'channelkit'
import { RedisBackend } from 'channelkit/redis'
export default defineConfig({
  worker: { concurrency: ${concurrency} },
  websocket: { allowedOrigins: ['*'], allowMissingOrigin: true },
  channelBackends: {
    default: {
      backend: () => new RedisBackend({ url: '${url}', timeoutMs: ${timeoutMs} }),
      routing: defineRouting({
        'websocket.connect': async (message) => {
          await Group('everybody').add(message.replyChannel)
        },
        'websocket.receive': async (message) => {
          await message.replyChannel.send({ content: message.content.content })
        },
      }),
    },
  },
})
`

let network: { readonly machines: readonly OwnNetwork[]; remove(): Promise<void> } | undefined
let redis: RedisServer | undefined
let site: SiteFolder | undefined
let backend: RedisBackend | undefined
let sockets: WebSocket[] = []

afterEach(async () => {
  for (const socket of sockets) socket.terminate()
  await backend?.close()
  await site?.dispose()
  await redis?.[Symbol.asyncDispose]()
  await network?.remove()
})

async function until(isReached: () => boolean | Promise<boolean>): Promise<void> {
  for (const deadline = Date.now() + 30_000; !(await isReached()); ) {
    if (Date.now() > deadline) throw new Error('not reached')
    await sleep(20)
  }
}

describe('interface servers, workers and Redis on machines of their own', () => {
  it('go on when the machine of a worker is cut off, and take it in again', async () => {
    network = await createMachines(5)
    const [ofRedis, ...others] = network.machines as readonly [OwnNetwork, ...OwnNetwork[]]
    redis = await RedisServer.startIn(ofRedis)
    const folder = await createSiteFolder({ 'channels.config.ts': configOf(redis.url) })
    site = folder
    const [firstFront, secondFront, cutOff, other] = others as OwnNetwork[] & { length: 4 }
    const listening = ['runwsserver', '--host', '0.0.0.0', '--port', '8000']
    const fronts = [firstFront, secondFront].map((machine) =>
      folder.startOn((machine as OwnNetwork).name, ...listening),
    )
    const workers = [cutOff, other].map((machine) =>
      folder.startOn((machine as OwnNetwork).name, 'runworker'),
    )
    await Promise.all(fronts.map((front) => front.url()))
    await Promise.all(workers.map((worker) => worker.started()))

    const echoes = new Map<string, number>()
    const heard = new Set<number>()
    const closed: number[] = []
    sockets = Array.from({ length: socketCount }, (_, index) => {
      const machine = (index % 2 === 0 ? firstFront : secondFront) as OwnNetwork
      const socket = new WebSocket(`ws://${machine.address}:8000/`)
      socket.on('message', (data) => {
        const text = String(data)
        if (text === 'broadcast') heard.add(index)
        else echoes.set(text, (echoes.get(text) ?? 0) + 1)
      })
      socket.on('close', (code) => closed.push(code))
      return socket
    })
    await Promise.all(sockets.map((socket) => once(socket, 'open')))
    const own = new RedisBackend({ url: redis.url, timeoutMs })
    backend = own
    await until(async () => (await own.groupChannels('everybody')).length === socketCount)

    let sent = 0
    const send = async (rounds: number): Promise<void> => {
      for (let round = 0; round < rounds; round++, sent++) {
        for (const [index, socket] of sockets.entries()) socket.send(`${index}:${sent}`)
        await sleep(50)
      }
    }
    await send(20)
    await until(() => echoes.size === sent * socketCount)
    await (cutOff as OwnNetwork).cut()
    await send(100)
    const lostByCut = async (): Promise<number> => {
      for (let quiet = 0, last = -1; quiet < 30; quiet++) {
        if (echoes.size !== last) quiet = 0
        last = echoes.size
        await sleep(100)
      }
      return sent * socketCount - echoes.size
    }
    const lost = await lostByCut()
    await (cutOff as OwnNetwork).mend()
    await (other as OwnNetwork).cut()
    const before = echoes.size
    // Now only the machine that was away can answer.
    await until(async () => {
      await send(1)
      return echoes.size > before + 2 * concurrency
    })
    await (other as OwnNetwork).mend()
    await send(20)
    const lostInAll = await lostByCut()
    await own.groupSend([{ group: 'everybody', content: { content: 'broadcast' } }])
    await until(() => heard.size === socketCount)

    console.log(JSON.stringify({ sent: sent * socketCount, lost, lostInAll }))
    expect([...echoes.values()].filter((times) => times > 1)).toEqual([])
    // What it was running, and what it was handed when nobody knew yet that it was away.
    expect(lost).toBeLessThanOrEqual(2 * concurrency)
    expect(lostInAll).toBeLessThanOrEqual(4 * concurrency)
    expect(closed).toEqual([])
  })
})
