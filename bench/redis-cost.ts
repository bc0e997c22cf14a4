// What a Redis spends on a site: CPU per message by batch, memory per socket in a group, idle traffic.
// node --import tsx bench/redis-cost.ts [messages] [members]
import { setTimeout as sleep } from 'node:timers/promises'
import { defineConfig, defineRouting, setup } from 'channelkit'
import { RedisBackend } from 'channelkit/redis'
import { attach, createHttpServer } from 'channelkit/server'
import { RedisServer } from '../test/support/redis-server.ts'

const messageCount = Number(process.argv[2] ?? 40_000)
const memberCount = Number(process.argv[3] ?? 10_000)
const idleSeconds = 20
const maxInFlight = 400

const server = await RedisServer.start()
const open = () =>
  new RedisBackend({ url: server.url, capacity: 1_000_000, inboxCapacity: 1_000_000 })
const info = async (name: string): Promise<number> =>
  Number(
    new RegExp(`^${name}:([\\d.]+)`, 'm').exec(String(await server.command('INFO', 'all')))?.[1],
  )
const cpuSeconds = async () => (await info('used_cpu_user')) + (await info('used_cpu_sys'))
const rounded = (value: number): number => Number(value.toFixed(1))
const perMessage = async (count: number, work: () => Promise<void>): Promise<number> => {
  const before = await cpuSeconds()
  await work()
  return rounded((((await cpuSeconds()) - before) * 1e6) / count)
}
const content = { content: 'x'.repeat(100), path: '/' }

const cost: Record<string, number> = {}
for (const size of [1, 10, 100]) {
  const [sender, receiver] = [open(), open()]
  let left = messageCount
  const receiving = (async () => {
    while (left > 0) {
      const got = await receiver.receive(['work'], { max: 100, waitMs: 2_000 })
      left -= got.length
      if (got.length === 0) break
    }
  })()
  cost[`work channel, batches of ${size}: µs of Redis each`] = await perMessage(
    messageCount,
    async () => {
      const batch = Array.from({ length: size }, () => ({ channel: 'work', content }))
      for (let sent = 0; sent < messageCount; sent += size) {
        await sender.send(batch)
        while (messageCount - sent - left > maxInFlight) await sleep(1)
      }
      await receiving
    },
  )
  await Promise.all([sender.close(), receiver.close()])
}

const backend = open()
const inbox = await backend.openInbox<number>()
const before = await info('used_memory')
const members = Array.from({ length: memberCount }, (_, owner) => ({
  group: 'all',
  channel: inbox.newChannel(owner),
}))
await backend.groupAdd(members)
while ((await inbox.receive({ max: 10_000, waitMs: 100 })).length > 0);
await server.command('MEMORY', 'PURGE')
cost['bytes of Redis for each socket in a group'] = rounded(
  ((await info('used_memory')) - before) / memberCount,
)
const groupMessages = Math.ceil(messageCount / 4)
let delivered = 0
const reading = (async () => {
  while (delivered < groupMessages) {
    const got = await inbox.receive({ max: 1_000, waitMs: 2_000 })
    if (got.length === 0) break
    delivered += got.length
  }
})()
cost[`group message for ${memberCount} members on one server: µs of Redis each`] = await perMessage(
  groupMessages,
  async () => {
    for (let sent = 0; sent < groupMessages; sent++)
      await backend.groupSend([{ group: 'all', content }])
    await reading
  },
)
await inbox.close()
await backend.close()

const site = await setup(
  defineConfig({
    channelBackends: {
      default: {
        backend: new RedisBackend({ url: server.url }),
        routing: defineRouting({ 'websocket.receive': () => {} }),
      },
    },
  }),
)
const http = createHttpServer()
const attached = await attach(http, site, { worker: true })
await sleep(2_000)
const [calls, cpu] = [await info('total_commands_processed'), await cpuSeconds()]
await sleep(idleSeconds * 1_000)
const found = ((await info('total_commands_processed')) - calls) / idleSeconds
cost['calls of an idle interface server and worker, each second, with those of their scripts'] =
  found
cost['share of a core that Redis takes for them, %'] = rounded(
  ((await cpuSeconds()) - cpu) * (100 / idleSeconds),
)
await attached.close()
await site.close()
await server[Symbol.asyncDispose]()

process.stdout.write(`${JSON.stringify(cost, undefined, 2)}\n`)
