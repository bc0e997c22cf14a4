import { setTimeout as sleep } from 'node:timers/promises'
import type { Inbox } from 'channelkit/backend'
import { RedisBackend } from 'channelkit/redis'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { keySlot } from '../../src/backends/redis/key-slot.ts'
import { type RedisServer, startRedisCluster } from '../support/redis-server.ts'

let servers: readonly RedisServer[] = []

beforeAll(async () => {
  servers = await startRedisCluster()
})

afterAll(async () => {
  for (const server of servers) await server[Symbol.asyncDispose]()
})

/** Moves a slot to the next master, as `redis-cli --cluster reshard` does. */
async function moveSlot(slot: number): Promise<void> {
  const at = Math.floor((slot * servers.length) / 16_384)
  const [source, target, other] = [0, 1, 2].map((n) => servers[(at + n) % 3]) as [
    RedisServer,
    RedisServer,
    RedisServer,
  ]
  const id = async (server: RedisServer) => String(await server.command('CLUSTER', 'MYID'))
  const [sourceId, targetId] = [await id(source), await id(target)]
  const setSlot = (server: RedisServer, ...how: readonly string[]) =>
    server.command('CLUSTER', 'SETSLOT', String(slot), ...how)
  await setSlot(target, 'IMPORTING', sourceId)
  await setSlot(source, 'MIGRATING', targetId)
  for (;;) {
    const keys = (await source.command('CLUSTER', 'GETKEYSINSLOT', String(slot), '10')) as string[]
    if (keys.length === 0) break
    const to = ['127.0.0.1', String(target.port), '', '0', '5000']
    await source.command('MIGRATE', ...to, 'KEYS', ...keys)
  }
  for (const server of [target, source, other]) await setSlot(server, 'NODE', targetId)
}

it('loses, doubles and reorders nothing while the slots of work channels and inboxes move', async () => {
  const url = `redis+cluster://127.0.0.1:${servers[0]?.port}`
  const sender = new RedisBackend({ url, timeoutMs: 3_000 })
  const receiver = new RedisBackend({ url, timeoutMs: 3_000 })
  const inboxes: Inbox<string>[] = []
  for (let count = 0; count < 10; count++) inboxes.push(await receiver.openInbox<string>())
  const got = new Map<string, unknown[]>([['jobs', []]])
  let isOver = false
  const receive = async (channel: string, take: () => Promise<readonly { content: object }[]>) => {
    const list: unknown[] = []
    got.set(channel, list)
    while (!isOver) for (const { content } of await take()) list.push(Object.values(content)[0])
  }
  const options = { max: 20, waitMs: 300 }
  const receiving = [
    receive('jobs', () => receiver.receive(['jobs'], options)),
    ...inboxes.map((inbox) => receive(inbox.newChannel('x'), () => inbox.receive(options))),
  ]
  const channels = [...got.keys()]
  const counts = new Map<string, number>()
  const sent = Promise.all(
    channels.map(async (channel) => {
      for (let n = 0; !isOver && n < 100_000; n++) {
        expect(await sender.send([{ channel, content: { n } }])).toEqual([])
        counts.set(channel, n + 1)
        await sleep(5)
      }
    }),
  )
  const names = ['channelkit:{work}', ...inboxes.map(({ name }) => `channelkit:{${name}}`)]
  await sleep(500)
  for (const name of names) await moveSlot(keySlot(name))
  await sleep(500)
  isOver = true
  await sent
  await Promise.all(receiving)
  const rest = await receiver.receive(['jobs'], { max: 10_000, waitMs: 300 })
  got.get('jobs')?.push(...rest.map(({ content }) => content.n))
  const faults: string[] = []
  for (const [place, inbox] of inboxes.entries()) {
    const left = await inbox.receive({ max: 10_000, waitMs: 300 })
    got.get(channels[place + 1] as string)?.push(...left.map(({ content }) => content.n))
  }
  for (const [channel, list] of got) {
    const strange = list.filter((n, at) => n !== at).slice(0, 5)
    const lost = (counts.get(channel) ?? 0) - list.length
    if (strange.length > 0 || lost !== 0) faults.push(`${channel}: lost ${lost}, ${strange}`)
  }
  const rounds = Math.min(...counts.values())
  console.log(JSON.stringify({ moved: names.length, rounds, faults: faults.length }))

  expect(faults).toEqual([])
  expect(rounds).toBeGreaterThan(20)
  await Promise.all([sender.close(), receiver.close()])
}, 30_000)
