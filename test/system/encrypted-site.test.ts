import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { RedisBackend } from 'channelkit/redis'
import { afterAll, afterEach, describe, expect, it } from 'vitest'
import { WebSocket } from 'ws'
import { createSiteFolder, type SiteFolder } from '../support/cli.ts'
import { RedisServer } from '../support/redis-server.ts'

const redis = await RedisServer.start()

const config = `import { defineConfig, defineRouting } from 'channelkit'
import { RedisBackend } from 'channelkit/redis'
const keys = process.env.CHANNEL_KEYS.split(',')
export default defineConfig({
  channelBackends: {
    default: {
      backend: () => new RedisBackend({ url: '${redis.url}', encryption: { keys } }),
      routing: defineRouting({
        'websocket.receive': async ({ content, replyChannel }) => {
          await replyChannel.send({ content: process.pid + ' ' + content.content })
        },
      }),
    },
  },
})
`

let site: SiteFolder | undefined

afterEach(async () => {
  await site?.dispose()
  site = undefined
})
afterAll(() => redis[Symbol.asyncDispose]())

const newKey = () => randomBytes(32).toString('base64')

describe('a site with encryption', () => {
  it('exchanges its key while a socket stays open, and no message is lost', async () => {
    site = await createSiteFolder({ 'channels.config.ts': config })
    const [old, fresh] = [newKey(), newKey()]
    const start = (keys: string, ...args: string[]) =>
      (site as SiteFolder).startWith({ CHANNEL_KEYS: keys }, ...args)
    const web = start(`${old},${fresh}`, 'runserver', '--no-worker', '--port', '0')
    const socket = new WebSocket((await web.url()).replace('http', 'ws'))
    await once(socket, 'open')
    const answers: string[] = []
    for (const keys of [old, `${old},${fresh}`, `${fresh},${old}`]) {
      const worker = await start(keys, 'runworker').started()
      socket.send('hello')
      const [data] = await once(socket, 'message')
      answers.push(String(data).replace(String(worker.process.pid), 'worker'))
      worker.kill('SIGTERM')
      expect((await worker.ended()).exitCode).toBe(0)
    }

    expect(answers).toEqual(['worker hello', 'worker hello', 'worker hello'])
    socket.terminate()
  })

  it('has workers that go on past messages of strangers, and say so', async () => {
    site = await createSiteFolder({ 'channels.config.ts': config })
    const key = newKey()
    const web = site.startWith({ CHANNEL_KEYS: key }, 'runserver', '--no-worker', '--port', '0')
    const worker = await site.startWith({ CHANNEL_KEYS: key }, 'runworker').started()
    const socket = new WebSocket((await web.url()).replace('http', 'ws'))
    await once(socket, 'open')
    const stranger = new RedisBackend({ url: redis.url })
    const forged = { channel: 'websocket.receive', content: { reply_channel: 'reply.x!y' } }
    await stranger.send([forged, forged, forged])
    await stranger.close()

    socket.send('hello')
    const [data] = await once(socket, 'message')

    expect(String(data)).toBe(`${worker.process.pid} hello`)
    await worker.waitFor(/was not encrypted with a key of this process/)
    expect(worker.stdout.match(/was not encrypted/g)).toHaveLength(1)
    socket.terminate()
  })
})
