import { once } from 'node:events'
import { Channel, defineRouting, encodeResponse, type Message, route } from 'channelkit'
import { describe, expect, it } from 'vitest'
import { deferred } from '../../support/deferred.ts'
import { carriers, serveSite } from '../../support/http-site.ts'
import { lastHeader, RawClient } from '../../support/raw-client.ts'

/** Answers with what it was asked. */
const mirror = {
  async fetch(request: Request): Promise<Response> {
    const url = new URL(request.url)
    const body = await request.text()
    return Response.json(
      { method: request.method, path: url.pathname, query: url.search, body },
      { headers: [['x-mirror', 'yes']] },
    )
  },
}

describe.each(carriers)('HttpServer on a real port, over %s', (carrier) => {
  it.each([
    ['one Host too many', 'GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n'],
    ['no Host', 'GET / HTTP/1.1\r\n\r\n'],
    ['a folded header', 'GET / HTTP/1.1\r\nHost: a\r\nX-Fold: a\r\n b\r\n\r\n'],
    ['a header with a space in its name', 'GET / HTTP/1.1\r\nHost: a\r\nX Mark: a\r\n\r\n'],
    ['a null in a value', 'GET / HTTP/1.1\r\nHost: a\r\nX-Mark: a\0b\r\n\r\n'],
    ['a line feed alone', 'GET / HTTP/1.1\r\nHost: a\r\nX-Mark: a\rb\r\n\r\n'],
    [
      'two lengths that differ',
      'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab',
    ],
    [
      'a length and chunks',
      'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    ],
    ['a length that is none', 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na'],
    ['a bad chunk', 'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n'],
    ['no HTTP', 'hello\r\n\r\n'],
    ['a path that is not UTF-8', 'GET /%ff HTTP/1.1\r\nHost: a\r\n\r\n'],
    ['a target that is no path', 'GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n'],
    ['dot segments', 'GET /a/../admin HTTP/1.1\r\nHost: a\r\n\r\n'],
    ['encoded dot segments', 'GET /a/%2e%2E/admin HTTP/1.1\r\nHost: a\r\n\r\n'],
    ['a backslash', 'GET /a\\admin HTTP/1.1\r\nHost: a\r\n\r\n'],
    ['a fragment', 'GET /admin#/a HTTP/1.1\r\nHost: a\r\n\r\n'],
    [
      'chunks in HTTP/1.0',
      'POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    ],
  ])('answers 400 to %s, and asks no view', async (_what, text) => {
    let asked = 0
    const app = { fetch: () => new Response(String(asked++)) }
    await using site = await serveSite(carrier, { app })
    const client = await RawClient.connect(site.port)

    client.write(text)

    expect((await client.answer()).status).toBe(400)
    expect(asked).toBe(0)
    client.close()
  })

  it.each([
    [405, 'TRACE', 'TRACE / HTTP/1.1\r\nHost: a\r\n'],
    [501, 'a body in gzip', 'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n'],
    [505, 'HTTP/2.0 in text', 'GET / HTTP/2.0\r\nHost: a\r\n'],
  ])('answers %i to %s, and asks no view', async (status, _what, head) => {
    let asked = 0
    await using site = await serveSite(carrier, {
      app: { fetch: () => new Response(String(asked++)) },
    })
    const client = await RawClient.connect(site.port)

    client.write(`${head}Connection: close\r\n\r\n`)

    expect((await client.answer()).status).toBe(status)
    expect(asked).toBe(0)
    expect(site.log).toEqual([])
    expect(site.servers.counters()).toMatchObject({ 'requests.unsupported': 1 })
    client.close()
  })

  it('takes chunks in capitals', async () => {
    await using site = await serveSite(carrier, { app: mirror })
    const client = await RawClient.connect(site.port)

    client.write('POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n')
    client.write('2\r\nab\r\n0\r\n\r\n')

    expect((await client.answer()).body.toString()).toContain('"body":"ab"')
    client.close()
  })

  it.each([
    ['an empty Host', '127.0.0.1', 'GET /public/admin HTTP/1.1\r\nHost:\r\n\r\n'],
    ['no Host, on an IPv6 port', '::1', 'GET /public/admin HTTP/1.0\r\n\r\n'],
    ['no Host, on a port of both', '::', 'GET /public/admin HTTP/1.0\r\n\r\n'],
  ])('shows the view the path of a request with %s', async (_what, host, text) => {
    const app = { fetch: ({ url }: Request) => new Response(url) }
    await using site = await serveSite(carrier, { app }, { host })
    const client = await RawClient.connect(site.port, host === '::1' ? host : '127.0.0.1')

    client.write(text)

    const origin = `http://${host === '::1' ? '[::1]' : '127.0.0.1'}:${site.port}`
    expect((await client.answer()).body.toString()).toBe(`${origin}/public/admin`)
    client.close()
  })

  it('lets no path reach an app that passes a route of its own', async () => {
    const routing = defineRouting(
      {},
      route('http.request', { path: '/admin/*' }, async ({ replyChannel }) => {
        await replyChannel.send({ status: 403 })
      }),
    )
    const seen: string[] = []
    const app = {
      fetch: ({ url }: Request) => {
        seen.push(new URL(url).pathname)
        return new Response()
      },
    }
    await using site = await serveSite(carrier, { app, routing })
    const client = await RawClient.connect(site.port)
    const ask = async (path: string, host = 'a'): Promise<number> => {
      client.write(`GET ${path} HTTP/1.1\r\nHost: ${host}\r\n\r\n`)
      return (await client.answer()).status
    }

    expect(await ask('/admin/x')).toBe(403)
    expect(await ask('/y/admin/x', '')).toBe(200)
    expect(await ask('//admin/x')).toBe(200)
    client.close()

    expect(seen).toEqual(['/y/admin/x', '//admin/x'])
  })

  it('answers 431 to a head that is too large', async () => {
    await using site = await serveSite(carrier, { app: mirror, http: { maxHeaderBytes: 8_192 } })
    const client = await RawClient.connect(site.port)

    client.write(`GET / HTTP/1.1\r\nHost: a\r\nX-Long: ${'a'.repeat(9_000)}\r\n\r\n`)

    expect((await client.answer()).status).toBe(431)
  })

  it('answers 408 to a head that does not end', async () => {
    await using site = await serveSite(carrier, { app: mirror, http: { headersMs: 100 } })
    const client = await RawClient.connect(site.port)

    client.write('GET / HTTP/1.1\r\nHost: a\r\n')

    expect((await client.answer()).status).toBe(408)
  })

  it('answers 408 to a body that does not come', async () => {
    await using site = await serveSite(carrier, { app: mirror, http: { requestMs: 100 } })
    const client = await RawClient.connect(site.port)

    client.write('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc')

    expect((await client.answer()).status).toBe(408)
    expect(site.servers.counters()['requests.slow-body']).toBe(1)
    await client.ended()
  })

  it('answers 408 to a long body whose next part does not come', async () => {
    await using site = await serveSite(carrier, { app: mirror, http: { requestMs: 200 } })
    const client = await RawClient.connect(site.port)

    client.write('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n')
    client.write('x'.repeat(600_000))

    expect((await client.answer()).status).toBe(408)
    await client.ended()
  })

  it('answers 413 to a declared length over the limit, before any of it is read', async () => {
    await using site = await serveSite(carrier, { app: mirror, http: { maxBodyBytes: 1_000 } })
    const client = await RawClient.connect(site.port)

    client.write('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n')

    expect((await client.answer()).status).toBe(413)
  })

  it('answers 413 to chunks over the limit', async () => {
    await using site = await serveSite(carrier, { app: mirror, http: { maxBodyBytes: 1_000 } })
    const client = await RawClient.connect(site.port)

    client.write('POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n')
    client.write(`3e9\r\n${'x'.repeat(1_001)}\r\n`)

    expect((await client.answer()).status).toBe(413)
  })

  it('lets a client finish sending what is refused, so that it reads why', async () => {
    await using site = await serveSite(carrier, { app: mirror, http: { maxBodyBytes: 1_000 } })

    const body = Buffer.alloc(10_000_000)
    const response = await fetch(`http://127.0.0.1:${site.port}/`, { method: 'POST', body })

    expect(response.status).toBe(413)
    expect(await response.text()).toContain('1000 bytes')
    expect((await fetch(`http://127.0.0.1:${site.port}/`)).status).toBe(200)
  })

  it('lets a client finish sending what a view answers without reading it', async () => {
    const app = { fetch: () => new Response('enough') }
    await using site = await serveSite(carrier, { app, http: { maxBodyBytes: 20_000_000 } })

    const body = Buffer.alloc(10_000_000)
    const response = await fetch(`http://127.0.0.1:${site.port}/`, { method: 'POST', body })

    expect(await response.text()).toBe('enough')
  })

  it('lets a client that expects it go on, and answers', async () => {
    await using site = await serveSite(carrier, { app: mirror })
    const client = await RawClient.connect(site.port)

    client.write('POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n')
    expect((await client.answer()).status).toBe(100)
    client.write('ab')

    expect((await client.answer()).body.toString()).toContain('"body":"ab"')
    client.close()
  })

  it('does not let a client go on whose body would be too large', async () => {
    await using site = await serveSite(carrier, { app: mirror, http: { maxBodyBytes: 1 } })
    const client = await RawClient.connect(site.port)

    client.write('POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n')

    expect((await client.answer()).status).toBe(413)
  })

  it('keeps a connection for further requests, answered in their order', async () => {
    await using site = await serveSite(carrier, { app: mirror })
    const client = await RawClient.connect(site.port)

    client.write('GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n')
    const [first, second] = [await client.answer(), await client.answer()]
    client.write('GET /3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n')
    const third = await client.answer()

    const paths = [first, second, third].map(({ body }) => JSON.parse(body.toString()).path)
    expect(paths).toEqual(['/1', '/2', '/3'])
    expect(lastHeader(third.headers, 'connection')).toBe('close')
    await client.ended()
  })

  it('answers HTTP/1.0 without chunks and closes', async () => {
    const app = {
      fetch: () =>
        new Response(
          new ReadableStream({
            async start(controller) {
              controller.enqueue(new TextEncoder().encode('one '))
              await new Promise((resolve) => setImmediate(() => setImmediate(resolve)))
              controller.enqueue(new TextEncoder().encode('two'))
              controller.close()
            },
          }),
        ),
    }
    await using site = await serveSite(carrier, { app })
    const client = await RawClient.connect(site.port)

    client.write('GET / HTTP/1.0\r\nHost: a\r\n\r\n')

    const answer = await client.answer()
    expect(answer.body.toString()).toBe('one two')
    expect(lastHeader(answer.headers, 'transfer-encoding')).toBe(undefined)
  })

  it('answers HEAD with the length and without the body', async () => {
    await using site = await serveSite(carrier, { app: { fetch: () => new Response('hello') } })
    const client = await RawClient.connect(site.port)

    client.write('HEAD / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n')

    expect(lastHeader((await client.answer('HEAD')).headers, 'content-length')).toBe('5')
    expect((await client.answer()).body.toString()).toBe('hello')
    client.close()
  })

  it('hands on OPTIONS *', async () => {
    await using site = await serveSite(carrier, { app: mirror })
    const client = await RawClient.connect(site.port)

    client.write('OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n')

    expect((await client.answer()).body.toString()).toContain('"method":"OPTIONS"')
    client.close()
  })

  it('keeps duplicate headers, their order, and every cookie', async () => {
    const seen: (readonly (readonly [string, string])[])[] = []
    const routing = defineRouting({
      'http.request': async (message) => {
        seen.push(message.content.headers)
        const headers: [string, string][] = [
          ['x-b', '1'],
          ['set-cookie', 'a=1'],
          ['x-a', '2'],
          ['set-cookie', 'b=2; Path=/'],
          ['x-b', '3'],
        ]
        await message.replyChannel.send({ headers, content: 'ok' })
      },
    })
    await using site = await serveSite(carrier, { routing })
    const client = await RawClient.connect(site.port)

    client.write('GET / HTTP/1.1\r\nHost: a\r\nX-B: 1\r\nX-A: 2\r\nX-B: 3\r\n\r\n')
    const { headers } = await client.answer()

    expect(seen).toEqual([
      [
        ['host', 'a'],
        ['x-b', '1'],
        ['x-a', '2'],
        ['x-b', '3'],
      ],
    ])
    expect(headers.filter(([name]) => /^(x-|set-)/.test(name))).toEqual([
      ['x-b', '1'],
      ['x-b', '3'],
      ['set-cookie', 'a=1'],
      ['set-cookie', 'b=2; Path=/'],
      ['x-a', '2'],
    ])
    client.close()
  })

  it('drops the trailers of a request', async () => {
    await using site = await serveSite(carrier, { app: mirror })
    const client = await RawClient.connect(site.port)

    client.write('POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n')
    client.write('2\r\nab\r\n0\r\nX-Trailer: 1\r\n\r\n')

    expect((await client.answer()).body.toString()).toContain('"body":"ab"')
    client.close()
  })

  it('takes a target in absolute form', async () => {
    await using site = await serveSite(carrier, { app: mirror })
    const client = await RawClient.connect(site.port)

    client.write('GET http://elsewhere/a%2Fb?x=1 HTTP/1.1\r\nHost: a\r\n\r\n')

    expect(JSON.parse((await client.answer()).body.toString())).toMatchObject({
      path: '/a%2Fb',
      query: '?x=1',
    })
    client.close()
  })

  it('lets no header of the view begin another', async () => {
    const routing = defineRouting({
      'http.request': (message: Message<'http.request'>) =>
        message.replyChannel.send({ headers: [['x-mark', 'a\r\nset-cookie: evil=1']] }),
    })
    await using site = await serveSite(carrier, { routing })
    const client = await RawClient.connect(site.port)

    client.write('GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n')
    const all = await client.ended()

    expect(all).toMatch(/^HTTP\/1\.1 500 /)
    // The page of development names the header, escaped.
    expect(all.split('\r\n\r\n')[0]).not.toContain('evil')
    expect(all).not.toContain('\r\nset-cookie')
  })

  it('answers 503 with Retry-After where no worker comes', async () => {
    const http = { workerGapMs: 50 }
    await using site = await serveSite(carrier, { app: mirror, http }, { worker: false })

    const response = await fetch(`http://127.0.0.1:${site.port}/`)

    expect(response.status).toBe(503)
    expect(response.headers.get('retry-after')).toBe('5')
  })

  it('answers 503 to what waits for a worker or its body when it closes', async () => {
    await using site = await serveSite(carrier, { app: mirror }, { worker: false })
    await using served = await serveSite(carrier, { app: mirror })
    const [waiting, sending] = [
      await RawClient.connect(site.port),
      await RawClient.connect(served.port),
    ]

    const arrived = once(site.server, 'request')
    waiting.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n')
    sending.write('POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n')
    await sending.answer()
    await arrived
    await Promise.all([site.servers.close(), served.servers.close()])

    expect((await sending.answer()).status).toBe(503)
    expect(await waiting.ended()).toMatch(/^HTTP\/1\.1 503 /)
  })

  it('answers 504 when no answer comes, and tells the view', async () => {
    const aborted = deferred()
    const app = {
      fetch: (request: Request) =>
        new Promise<Response>((resolve) => {
          request.signal.addEventListener('abort', () => {
            aborted.resolve()
            resolve(new Response())
          })
        }),
    }
    await using site = await serveSite(carrier, { app, http: { responseMs: 1_500 } })

    const response = await fetch(`http://127.0.0.1:${site.port}/`)
    await aborted.promise

    expect(response.status).toBe(504)
  })

  it.each(['development', 'production'] as const)(
    'logs a failing view once, in %s',
    async (mode) => {
      const app = {
        fetch: () => {
          throw new Error('broken\r\nby design')
        },
      }
      await using site = await serveSite(carrier, { app, mode })

      const response = await fetch(`http://127.0.0.1:${site.port}/where?secret=1`, {
        method: 'POST',
      })
      const text = await response.text()

      expect(response.status).toBe(500)
      expect(text.includes('broken')).toBe(mode === 'development')
      expect(site.log).toEqual([
        {
          level: 'error',
          message: 'the view of POST /where failed',
          facts: {
            err: expect.objectContaining({ message: 'broken\r\nby design' }),
            method: 'POST',
            path: '/where',
            request: expect.stringMatching(/^[\w-]{10}$/),
          },
        },
      ])
    },
  )

  it.each(['development', 'production'] as const)(
    'logs an answer that cannot be sent once, in %s',
    async (mode) => {
      const app = { fetch: () => Response.error() }
      await using site = await serveSite(carrier, { app, mode })

      const response = await fetch(`http://127.0.0.1:${site.port}/where`)
      const text = await response.text()

      expect(response.status).toBe(500)
      expect(text).toMatch(
        mode === 'development'
          ? /the status of a response is 0; .+\n {4}at /
          : /^Internal Server Error\nRequest [\w-]{10}\n$/,
      )
      expect(site.log).toHaveLength(1)
      expect(site.log[0]).toMatchObject({
        level: 'error',
        message: expect.stringContaining('GET /where'),
        facts: { method: 'GET', path: '/where', request: expect.stringMatching(/^[\w-]{10}$/) },
      })
    },
  )

  it('lets whoever comes later answer', async () => {
    const waiting: string[] = []
    const asked = deferred()
    const routing = defineRouting({
      'http.request': (message) => {
        waiting.push(message.content.reply_channel)
        asked.resolve()
      },
      answers: async (message) => {
        const backend = message.backend
        for (const name of waiting) {
          await Channel(name, { backend }).send(await encodeResponse(new Response('at last')))
        }
      },
    })
    await using site = await serveSite(carrier, { routing })

    const response = fetch(`http://127.0.0.1:${site.port}/`)
    await asked.promise
    await Channel('answers', { backend: site.backend }).send({})

    expect(await (await response).text()).toBe('at last')
  })
})
