import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setup } from 'channelkit'
import { attach } from 'channelkit/server'
import { describe, expect, it } from 'vitest'
import { carriers, serveSite } from '../../support/http-site.ts'
import { RawClient } from '../../support/raw-client.ts'

const h2c = [
  'Connection: Upgrade, HTTP2-Settings',
  'Upgrade: h2c',
  'HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA',
  '',
  '',
].join('\r\n')

/** Answers with what it was asked. */
const mirror = {
  async fetch(request: Request): Promise<Response> {
    const { pathname } = new URL(request.url)
    const mark = request.headers.get('x-mark') ?? ''
    return new Response(`${request.method} ${pathname} ${mark} ${await request.text()}`)
  },
}

describe.each(carriers)('A request to upgrade to HTTP/2, over %s', (carrier) => {
  it('is served as an ordinary one, and its connection goes on', async () => {
    await using site = await serveSite(carrier, { app: mirror })
    const client = await RawClient.connect(site.port)

    client.write(`GET /a%2Fb?x HTTP/1.1\r\nHost: a\r\nX-Mark: e\r\n${h2c}`)
    const first = await client.answer()
    client.write('GET /2 HTTP/1.1\r\nHost: a\r\n\r\n')
    const second = await client.answer()
    client.write(`GET /3 HTTP/1.1\r\nHost: a\r\n${h2c}`)
    const third = await client.answer()

    expect(first.status).toBe(200)
    const bodies = [first, second, third].map(({ body }) => body.toString())
    expect(bodies).toEqual(['GET /a%2Fb e ', 'GET /2  ', 'GET /3  '])
    client.close()
  })

  it('may have a body, at once or later, of known length or in chunks', async () => {
    await using site = await serveSite(carrier, { app: mirror })
    const client = await RawClient.connect(site.port)
    const long = 'x'.repeat(300_000)

    client.write(`POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n${h2c}body`)
    const atOnce = await client.answer()
    client.write(`POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n${h2c}`)
    client.write(long)
    const later = await client.answer()
    client.write(`POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n${h2c}2\r\nab\r\n`)
    client.write('1\r\nc\r\n0\r\n\r\n')
    const inChunks = await client.answer()

    expect(atOnce.body.toString()).toBe('POST /  body')
    expect(later.body.toString()).toBe(`POST /  ${long}`)
    expect(inChunks.body.toString()).toBe('POST /  abc')
    client.close()
  })

  it('waits for the answers of those before it', async () => {
    const app = {
      async fetch(request: Request): Promise<Response> {
        const { pathname } = new URL(request.url)
        const turns = pathname === '/1' ? 50 : 0
        for (let n = 0; n < turns; n++) await new Promise((resolve) => setImmediate(resolve))
        return new Response(pathname)
      },
    }
    await using site = await serveSite(carrier, { app, http: { maxPipelined: 2 } })
    const client = await RawClient.connect(site.port)

    const plain = [1, 2, 3].map((n) => `GET /${n} HTTP/1.1\r\nHost: a\r\n\r\n`).join('')
    client.write(`${plain}GET /4 HTTP/1.1\r\nHost: a\r\n${h2c}GET /5 HTTP/1.1\r\nHost: a\r\n\r\n`)

    const bodies: string[] = []
    for (let n = 1; n <= 5; n++) bodies.push((await client.answer()).body.toString())
    expect(bodies).toEqual(['/1', '/2', '/3', '/4', '/5'])
    client.close()
  })

  it('gets 400 where its head has too many headers to be read whole', async () => {
    let asked = 0
    await using site = await serveSite(carrier, {
      app: { fetch: () => new Response(String(asked++)) },
    })
    const client = await RawClient.connect(site.port)

    const many = 'a: 1\r\n'.repeat(1_100)
    client.write(`POST / HTTP/1.1\r\nHost: a\r\n${many}Content-Length: 36\r\n${h2c}`)
    client.write('GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n')

    expect((await client.answer()).status).toBe(400)
    await client.ended()
    expect(asked).toBe(0)
  })
})

describe('attach beside an app of the server', () => {
  it('leaves the app requests to upgrade to HTTP/2', async () => {
    const server = createServer((request, response) => response.end(request.url))
    const site = await setup({ channelBackends: { default: { backend: 'memory:' } } })
    const servers = await attach(server, site)
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const client = await RawClient.connect((server.address() as AddressInfo).port)

    client.write(`GET /app HTTP/1.1\r\nHost: a\r\n${h2c}`)

    expect((await client.answer()).body.toString()).toBe('/app')
    client.close()
    await servers.close()
    await new Promise((resolve) => server.close(resolve))
    await site.close()
  })
})
