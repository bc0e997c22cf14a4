import type { IncomingMessage, ServerResponse } from 'node:http'
import { describe, expect, it } from 'vitest'
import { deferred } from '../../support/deferred.ts'
import { carriers, serveSite } from '../../support/http-site.ts'
import { RawClient } from '../../support/raw-client.ts'

const request = (path: string, head = '') => `GET ${path} HTTP/1.1\r\nHost: a\r\n${head}\r\n`
const requests = (count: number, head = '') =>
  Array.from({ length: count }, (_, n) => request(`/${n}`, head)).join('')
const turn = () => new Promise<void>((resolve) => setImmediate(resolve))

describe.each(carriers)('a client that does not wait for answers, over %s', (carrier) => {
  it.each([1, 2, 16])('has no more than %i requests under way, answered in order', async (max) => {
    let [underWay, most] = [0, 0]
    const app = async ({ url }: IncomingMessage, response: ServerResponse): Promise<void> => {
      most = Math.max(most, ++underWay)
      // The earlier ones of each sixteen take longer.
      for (let turns = 16 - (Number(url?.slice(1)) % 16); turns > 0; turns--) await turn()
      underWay--
      response.end(url)
    }
    await using site = await serveSite(carrier, { app, http: { maxPipelined: max } })
    const client = await RawClient.connect(site.port)

    client.write(requests(200))

    for (let n = 0; n < 200; n++) expect((await client.answer()).body.toString()).toBe(`/${n}`)
    expect(most).toBe(max)
    client.write(request('/last'))
    expect((await client.answer()).body.toString()).toBe('/last')
    client.close()
  })

  it('keeps no slot and no room in the queue from others', async () => {
    const held = deferred()
    const app = async ({ url }: IncomingMessage, response: ServerResponse): Promise<void> => {
      if (url !== '/other') await held.promise
      response.end(url)
    }
    const worker = { concurrency: 20 }
    await using site = await serveSite(
      carrier,
      { app, worker, mode: 'production' },
      { backend: { capacity: 20 } },
    )
    const client = await RawClient.connect(site.port)
    let read = 0
    site.server.on('request', () => read++)

    client.write(requests(20_000, `X-Long: ${'x'.repeat(1_000)}\r\n`))
    while (read < 16) await turn()
    const other = await fetch(`http://127.0.0.1:${site.port}/other`)

    expect(await other.text()).toBe('/other')
    // No more than one read of 64 KiB beyond those under way.
    expect(read).toBeLessThan(150)
    expect(site.servers.counters()).toMatchObject({ requests: 17 })
    held.resolve()
    for (let n = 0; n < 1_000; n++) expect((await client.answer()).body.toString()).toBe(`/${n}`)
    client.close()
  })

  it('may send bodies, and leave in the middle', async () => {
    const app = { fetch: async (asked: Request) => new Response(await asked.text()) }
    const http = { maxPipelined: 2 }
    await using site = await serveSite(carrier, { app, http })
    const client = await RawClient.connect(site.port)
    const body = 'x'.repeat(400_000)

    for (let n = 0; n < 6; n++) {
      client.write(
        `POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ${body.length + 1}\r\n\r\n${n}${body}`,
      )
    }

    for (let n = 0; n < 6; n++) {
      expect((await client.answer()).body.toString()).toBe(`${n}${body}`)
    }
    client.write(requests(50))
    await client.answer()
    client.close()
    expect(await (await fetch(`http://127.0.0.1:${site.port}/`)).text()).toBe('')
    expect(site.log).toEqual([])
  })

  it('gets 503 for what waits when the server closes', async () => {
    const held = deferred()
    const begun = deferred()
    const app = async (_request: IncomingMessage, response: ServerResponse): Promise<void> => {
      begun.resolve()
      await held.promise
      response.end('served')
    }
    await using site = await serveSite(carrier, { app, http: { maxPipelined: 1 } })
    const client = await RawClient.connect(site.port)

    client.write(requests(3))
    await begun.promise
    const closing = site.servers.close()
    held.resolve()

    expect((await client.answer()).body.toString()).toBe('served')
    expect((await client.answer()).status).toBe(503)
    await client.ended()
    await closing
  })
})
