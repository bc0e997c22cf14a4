import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { type Cli, createSiteFolder, type SiteFolder } from '../support/cli.ts'
import { RawClient } from '../support/raw-client.ts'

const config = `
import { appendFileSync } from 'node:fs'
import { defineConfig } from 'channelkit'
export default defineConfig({
  http: { workerGapMs: 3_000, maxBodyBytes: 30_000_000 },
  app: (request, response) => {
    if (request.url === '/pid') {
      response.end(String(process.pid))
    } else if (request.url === '/stream') {
      response.once('close', () => appendFileSync('closed.txt', 'closed\\n'))
      const timer = setInterval(() => response.write('tick\\n'), 50)
      response.once('close', () => clearInterval(timer))
    } else if (request.url === '/slow') {
      setTimeout(() => response.end('slow ' + process.pid), 1_000)
    } else {
      let size = 0
      request.on('data', (chunk) => { size += chunk.length })
      request.on('end', () => response.end(String(size)))
    }
  },
  channelBackends: { default: { backend: 'sqlite:channels.sqlite' } },
})
`

// What has died is noticed by its silence of 30 seconds.
const silenceMs = 45_000

describe.concurrent('HTTP over an interface server and a worker, each a process', () => {
  async function open(): Promise<{
    site: SiteFolder
    server: Cli
    worker: Cli
    url: string
    port: number
    [Symbol.asyncDispose](): Promise<void>
  }> {
    const site = await createSiteFolder({ 'channels.config.ts': config })
    const server = site.start('runserver', '--no-worker', '--port', '0')
    const worker = site.start('runworker')
    const url = await server.url()
    await worker.started()
    const port = Number(new URL(url).port)
    return { site, server, worker, url, port, [Symbol.asyncDispose]: () => site.dispose() }
  }

  it('answers in the worker, and takes 20 MiB', async () => {
    await using fleet = await open()

    const pid = await (await fetch(`${fleet.url}/pid`)).text()
    const body = Buffer.alloc(20 * 1_048_576)
    const size = await (await fetch(`${fleet.url}/upload`, { method: 'POST', body })).text()

    expect(pid).toBe(String(fleet.worker.process.pid))
    expect(size).toBe(String(body.length))
  })

  it('waits out a deploy: what runs is answered, what comes meanwhile is answered by the next worker', async () => {
    await using fleet = await open()
    const before = fetch(`${fleet.url}/slow`)
    await sleep(300)

    fleet.worker.kill('SIGTERM')
    await sleep(300)
    const during = fetch(`${fleet.url}/pid`)
    const ended = await fleet.worker.ended()
    const next = await fleet.site.start('runworker').started()

    expect(ended.exitCode).toBe(0)
    expect(await (await before).text()).toBe(`slow ${fleet.worker.process.pid}`)
    expect(await (await during).text()).toBe(String(next.process.pid))
  })

  it('answers 503 with Retry-After when no worker comes', async () => {
    await using fleet = await open()
    fleet.worker.kill('SIGTERM')
    await fleet.worker.ended()
    // The server looks every two seconds who is there.
    await sleep(4_000)

    const response = await fetch(`${fleet.url}/pid`)

    expect(response.status).toBe(503)
    expect(response.headers.get('retry-after')).toBe('5')
  })

  it('cuts the stream of a worker that was killed, so that nobody takes it for whole', {
    timeout: silenceMs + 30_000,
  }, async () => {
    await using fleet = await open()
    const client = await RawClient.connect(fleet.port)
    client.write('GET /stream HTTP/1.1\r\nHost: a\r\n\r\n')
    await client.until('tick\n')

    fleet.worker.kill('SIGKILL')
    const next = fleet.site.start('runworker')
    await next.started()
    // The server itself goes on.
    expect(await (await fetch(`${fleet.url}/pid`)).text()).toBe(String(next.process.pid))
    const all = await Promise.race([client.ended(), sleep(silenceMs, 'still open')])

    expect(all).toContain('tick')
    expect(all).not.toMatch(/\r\n0\r\n\r\n$/)
  })

  it('tells the view of an interface server that was killed', {
    timeout: silenceMs + 30_000,
  }, async () => {
    await using fleet = await open()
    const client = await RawClient.connect(fleet.port)
    client.write('GET /stream HTTP/1.1\r\nHost: a\r\n\r\n')
    await client.until('tick\n')

    fleet.server.kill('SIGKILL')

    const deadline = Date.now() + silenceMs
    let closed = ''
    while (closed === '' && Date.now() < deadline) {
      await sleep(500)
      closed = await readFile(join(fleet.site.path, 'closed.txt'), 'utf8').catch(() => '')
    }
    expect(closed).toBe('closed\n')
  })
})
