import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { WebSocket } from 'ws'
import { createSiteFolder, type SiteFolder } from '../support/cli.ts'
import { readPage } from '../support/code-blocks.ts'

const config = `import { defineConfig, defineRouting } from 'channelkit'
const routing = defineRouting({
  'http.request': async ({ content, replyChannel }) => {
    const { client, scheme, body } = content
    await replyChannel.send({ content: JSON.stringify({ client, scheme, size: body?.length ?? 0 }) })
  },
  'websocket.receive': async ({ content, replyChannel }) => {
    await replyChannel.send({ content: content.content })
  },
})
export default defineConfig({
  mode: 'production',
  http: { trustedProxies: ['127.0.0.1'] },
  channelBackends: { default: { backend: 'sqlite:site.sqlite', routing } },
})
`

let site: SiteFolder
let folder = ''
let proxy: ChildProcess | undefined

beforeEach(async () => {
  site = await createSiteFolder({ 'channels.config.ts': config })
  folder = await mkdtemp(join(tmpdir(), 'channelkit-proxy-'))
})

afterEach(async () => {
  proxy?.kill('SIGTERM')
  if (proxy && proxy.exitCode === null) await once(proxy, 'exit')
  await site.dispose()
  await rm(folder, { recursive: true })
})

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  server.close()
  await once(server, 'close')
  return port
}

async function listens(port: number): Promise<boolean> {
  const socket = connect({ port, host: '127.0.0.1' })
  try {
    await once(socket, 'connect')
    return true
  } catch {
    return false
  } finally {
    socket.destroy()
  }
}

/** The block of a page in a language, with the ports of this test. */
async function block(language: string, ports: readonly [string, string, string]): Promise<string> {
  const page = await readPage('docs/deploying.md')
  const [, code = ''] = new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\`$`, 'ms').exec(page) ?? []
  const [own, first, second] = ports
  return code
    .replace(/(listen |bind :)80\b/, (_all, word) =>
      word === 'listen ' ? `listen 127.0.0.1:${own}` : `bind 127.0.0.1:${own}`,
    )
    .replace('127.0.0.1:8001', `127.0.0.1:${first}`)
    .replace('127.0.0.1:8002', `127.0.0.1:${second}`)
}

const start: Readonly<Record<string, (code: string) => Promise<ChildProcess>>> = {
  async nginx(code) {
    const paths = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
      (name) => `${name}_temp_path ${folder}/${name};`,
    )
    const head = `daemon off; pid ${folder}/pid; error_log stderr;`
    const text = `${head} events {}\nhttp {\naccess_log off; ${paths.join(' ')}\n${code}\n}\n`
    await writeFile(join(folder, 'nginx.conf'), text)
    const args = ['-p', folder, '-e', 'stderr', '-c', join(folder, 'nginx.conf')]
    return spawn(process.env.NGINX ?? '/usr/sbin/nginx', args, { stdio: 'inherit' })
  },
  async haproxy(code) {
    await writeFile(join(folder, 'haproxy.cfg'), code)
    const args = ['-db', '-f', join(folder, 'haproxy.cfg')]
    return spawn(process.env.HAPROXY ?? '/usr/sbin/haproxy', args, { stdio: 'inherit' })
  },
}

describe.each(Object.keys(start))('the config of %s in docs/deploying.md', (name) => {
  it('passes requests, bodies and sockets on, and who sent them', async () => {
    const servers = [1, 2].map(() => site.start('runserver', '--no-worker', '--port', '0'))
    await site.start('runworker').started()
    const urls = await Promise.all(servers.map((server) => server.url()))
    const [first = '', second = ''] = urls.map((url) => new URL(url).port)
    const port = await freePort()
    proxy = await start[name]?.(await block(name, [String(port), first, second]))
    for (let tries = 0; !(await listens(port)) && tries < 200; tries++) await sleep(25)
    const origin = `http://127.0.0.1:${port}`

    const answer = await fetch(origin, {
      method: 'POST',
      body: Buffer.alloc(200_000),
      headers: { 'x-forwarded-for': '6.6.6.6', 'x-forwarded-proto': 'https' },
    })
    expect(await answer.json()).toEqual({ client: ['127.0.0.1', 0], scheme: 'http', size: 200_000 })

    const sockets = await Promise.all(
      [1, 2, 3, 4].map(async (number) => {
        const socket = new WebSocket(origin.replace('http', 'ws'), { origin })
        await once(socket, 'open')
        socket.send(`echo ${number}`)
        const [data] = await once(socket, 'message')
        return [String(data), socket] as const
      }),
    )
    expect(sockets.map(([text]) => text)).toEqual(['echo 1', 'echo 2', 'echo 3', 'echo 4'])
    for (const [, socket] of sockets) socket.terminate()

    const foreign = new WebSocket(origin.replace('http', 'ws'), { origin: 'http://evil.example' })
    const [error] = await once(foreign, 'error')
    expect(String(error)).toContain('403')

    servers[0]?.kill('SIGTERM')
    await servers[0]?.ended()
    const statuses = []
    for (let count = 0; count < 6; count++) statuses.push((await fetch(origin)).status)
    expect(statuses).toEqual([200, 200, 200, 200, 200, 200])
  })
})
