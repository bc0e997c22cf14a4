import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, afterEach, describe, expect, it } from 'vitest'
import { WebSocket } from 'ws'
import { createSiteFolder, repository, type SiteFolder } from '../support/cli.ts'
import { RedisServer } from '../support/redis-server.ts'

const execute = promisify(execFile)
const redis = await RedisServer.start()
const python = process.env.PYTHON ?? '/usr/bin/python3'
const script = join(repository, 'examples/python/send.py')
const group = 'Zimmer {1}: "ü" 🎈'

const config = `import { defineConfig, defineRouting, Group, linearize } from 'channelkit'
const group = ${JSON.stringify(group)}
const routing = defineRouting({
  'websocket.connect': ({ replyChannel }) => Group(group).add(replyChannel),
  'websocket.receive': async ({ content, replyChannel }) => {
    await replyChannel.send({ content: replyChannel.name + ' ' + content.content })
  },
  jobs: async ({ content }) => {
    console.log('job ' + JSON.stringify(content))
  },
  lined: linearize(async ({ content, replyChannel }) => {
    await new Promise((resolve) => setTimeout(resolve, 20))
    await replyChannel.send({ content: 'lined ' + content.number })
  }),
})
export default defineConfig({
  channelBackends: { default: { backend: '${redis.url}', routing } },
})
`

let site: SiteFolder | undefined

afterEach(async () => {
  await site?.dispose()
  site = undefined
})

afterAll(() => redis[Symbol.asyncDispose]())

const send = (...args: readonly string[]) => execute(python, [script, redis.url, ...args])

describe('examples/python/send.py', () => {
  it('sends to a channel and to a group of a site on Redis', async () => {
    site = await createSiteFolder({ 'channels.config.ts': config })
    const server = site.start('runserver', '--no-worker', '--port', '0')
    const worker = await site.start('runworker').started()
    const url = (await server.url()).replace('http', 'ws')
    const received: string[][] = [[], []]
    const sockets = await Promise.all(
      received.map(async (texts) => {
        const socket = new WebSocket(url)
        socket.on('message', (data) => texts.push(String(data)))
        await once(socket, 'open')
        socket.send('ready')
        await once(socket, 'message')
        return socket
      }),
    )
    const [reply = ''] = received[0]?.[0]?.split(' ') ?? []
    await send('channel', 'jobs', '{"number": 1, "text": "żółć"}')
    await worker.waitFor(/job \{"number":1,"text":"żółć"\}/)
    await send('group', group, '{"content": "from Python: 🎈"}')
    for (const number of [1, 2]) {
      await send('channel', 'lined', JSON.stringify({ number, reply_channel: reply }))
    }
    while ((received[0]?.length ?? 0) < 4 || (received[1]?.length ?? 0) < 2) {
      await Promise.race(sockets.map((socket) => once(socket, 'message')))
    }

    expect(received.map(([, ...texts]) => texts)).toEqual([
      ['from Python: 🎈', 'lined 1', 'lined 2'],
      ['from Python: 🎈'],
    ])
    expect(worker.stdout.match(/job /g)).toHaveLength(1)
    for (const socket of sockets) socket.terminate()
  })

  it('is told that a channel is full', async () => {
    site = await createSiteFolder({ 'channels.config.ts': config })
    const program = [
      `import sys; sys.path.insert(0, ${JSON.stringify(join(repository, 'examples/python'))})`,
      `from send import Site; site = Site(${JSON.stringify(redis.url)})`,
      'for number in range(1001): site.send("nobody", {"number": number})',
    ].join('\n')

    const failed = await execute(python, ['-c', program]).catch(({ stderr }) => String(stderr))

    expect(failed).toContain('channel nobody is full')
    const { stdout } = await site.run('channels', '--json')
    expect(JSON.parse(stdout)).toEqual(
      expect.arrayContaining([expect.objectContaining({ channel: 'nobody', waiting: 1_000 })]),
    )
  })
})
