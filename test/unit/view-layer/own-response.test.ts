import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { Readable } from 'node:stream'
import { Channel, type Config, defer, messageOf } from 'channelkit'
import express from 'express'
import session from 'express-session'
import { describe, expect, it } from 'vitest'
import { deferred } from '../../support/deferred.ts'
import { carriers, type ServedSite, serveSite } from '../../support/http-site.ts'
import { lastHeader, type RawAnswer, RawClient } from '../../support/raw-client.ts'

// In one process a view writes on the client's own response, and over SQLite in messages: what the
// client sees is the same.
describe.each(carriers)('A view over %s', (carrier) => {
  type View = (request: IncomingMessage, response: ServerResponse) => unknown

  const serve = (view: View, config: Partial<Config> = {}): Promise<ServedSite> =>
    serveSite(carrier, { app: (request, response) => view(request, response), ...config })

  async function ask(site: ServedSite, head = 'GET / HTTP/1.1\r\nHost: a\r\n'): Promise<RawAnswer> {
    const client = await RawClient.connect(site.port)
    client.write(`${head}\r\n`)
    const answer = await client.answer(head.split(' ')[0])
    client.close()
    return answer
  }

  /** Asks until a place is free: over a backend a view learns after a second that nobody waits. */
  async function askUntilFine(site: ServedSite): Promise<void> {
    while ((await ask(site)).body.toString() !== 'fine') await new Promise(setImmediate)
  }

  it('sets no header of the connection, nor an interim answer or a trailer', async () => {
    await using site = await serve((_request, response) => {
      response.setHeader('Connection', 'upgrade')
      response.setHeader('Upgrade', 'h2c')
      response.writeEarlyHints({ link: '</a.css>; rel=preload' })
      response.writeContinue()
      response.writeHead(200, { 'Keep-Alive': 'timeout=99', 'X-Own': 'yes', Trailer: 'x-late' })
      response.write('body')
      response.addTrailers({ 'x-late': 'yes' })
      response.end()
    })

    const { status, headers, body } = await ask(site)

    expect(status).toBe(200)
    expect(lastHeader(headers, 'x-own')).toBe('yes')
    expect(lastHeader(headers, 'connection')).toBe('keep-alive')
    expect(lastHeader(headers, 'keep-alive') ?? '').not.toContain('99')
    expect(lastHeader(headers, 'upgrade')).toBeUndefined()
    expect(lastHeader(headers, 'trailer')).toBeUndefined()
    expect(body.toString()).toBe('body')
  })

  it('is framed by its length alone', async () => {
    await using site = await serve((_request, response) => {
      response.setHeader('Transfer-Encoding', 'chunked')
      response.setHeader('Content-Length', 4)
      response.end('body')
    })

    const { headers, body } = await ask(site)

    expect(lastHeader(headers, 'transfer-encoding')).toBeUndefined()
    expect(headers.filter(([name]) => /^content-length$/i.test(name))).toHaveLength(1)
    expect(body.toString()).toBe('body')
  })

  it.each<[string, (response: ServerResponse) => unknown]>([
    ['two lengths', (response) => response.setHeader('Content-Length', ['4', '2']).end('body')],
    [
      'two lengths in its head',
      (response) =>
        response.writeHead(200, ['Content-Length', '4', 'content-length', '2']).end('body'),
    ],
    [
      'a list of lengths in its head',
      (response) => response.writeHead(200, { 'Content-Length': ['4', '2'] }).end('body'),
    ],
    [
      'a length that is none',
      (response) => response.setHeader('content-length', '4, 2').end('body'),
    ],
    [
      'a length in hexadecimal',
      (response) => response.writeHead(200, { 'x-mark': 'a', 'Content-Length': '0x4' }).end('body'),
    ],
  ])('gets 500 for %s', async (_what, view) => {
    await using site = await serve((_request, response) => view(response), { mode: 'production' })

    const { status, headers, body } = await ask(site)

    expect(status).toBe(500)
    expect(headers.filter(([name]) => /^content-length$/i.test(name))).toHaveLength(1)
    expect(body.toString()).toMatch(/^Internal Server Error\nRequest [\w-]{10}\n$/)
    expect(site.log).toMatchObject([{ facts: { method: 'GET', path: '/' } }])
  })

  it('gets 500 for a status that is none', async () => {
    await using site = await serve((_request, response) => {
      response.writeHead(600).end('x')
    })

    expect((await ask(site)).status).toBe(500)
    expect(site.log).toHaveLength(1)
  })

  it('has nothing of what it set on the page of its own failure', async () => {
    await using site = await serve(
      (_request, response) => {
        response.setHeader('set-cookie', 'secret=1')
        response.statusMessage = 'Fine'
        throw new Error('broken')
      },
      { mode: 'production' },
    )

    const { status, reason, headers, body } = await ask(site)

    expect(status).toBe(500)
    expect(reason).toBe('Internal Server Error')
    expect(lastHeader(headers, 'set-cookie')).toBeUndefined()
    expect(body.toString()).toContain('Internal Server Error')
    expect(site.log).toHaveLength(1)
  })

  it('may go on without harm when it took too long', async () => {
    const wentOn = deferred()
    await using site = await serve(
      async (_request, response) => {
        await once(response, 'close')
        response.setHeader('x-late', 'yes')
        response.writeHead(201, { 'x-later': 'yes' })
        response.write('late')
        response.end('too late')
        wentOn.resolve()
      },
      { http: { responseMs: 300 } },
    )

    const { status, headers, body } = await ask(site)

    expect(status).toBe(504)
    expect(lastHeader(headers, 'x-late')).toBeUndefined()
    expect(body.toString()).toBe('Gateway Timeout')
    await wentOn.promise
    expect(site.log).toEqual([])
    expect(site.servers.counters()).toMatchObject({ 'requests.timed-out': 1 })
  })

  it('leaves nothing on the answer of who answers later', async () => {
    const app = express()
    app.use(session({ secret: 'a', resave: false, saveUninitialized: true }))
    app.get('/', (request, response) => {
      response.setHeader('x-view', 'yes')
      defer(request)
      response.cookie('late', '1')
      response.status(418).send('not this')
      const { backend, content } = messageOf(request)
      setImmediate(() => {
        void Channel(content.reply_channel, { backend }).send({ status: 203, content: 'this' })
      })
    })
    await using site = await serveSite(carrier, { app })

    const { status, headers, body } = await ask(site)

    expect(status).toBe(203)
    expect(body.toString()).toBe('this')
    expect(lastHeader(headers, 'x-view')).toBeUndefined()
    expect(lastHeader(headers, 'set-cookie')).toBeUndefined()
    expect(site.log).toEqual([])
  })

  it('may cut the connection', async () => {
    await using site = await serve((_request, response) => {
      response.setHeader('content-length', 100)
      response.write('a part')
      setImmediate(() => response.destroy())
    })
    const client = await RawClient.connect(site.port)
    client.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n')

    expect(await client.ended()).toContain('a part')
    expect(site.servers.counters()['requests.aborted']).toBeUndefined()
  })

  it('sees the client behind a trusted proxy', async () => {
    await using site = await serve(
      ({ socket }, response) => {
        response.end(`${socket.remoteAddress} ${'encrypted' in socket && socket.encrypted}`)
      },
      { http: { trustedProxies: ['127.0.0.1'] } },
    )

    const { body } = await ask(
      site,
      'GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n',
    )

    expect(body.toString()).toBe('192.0.2.1 true')
  })

  it('answers HEAD with the head of GET', async () => {
    await using site = await serve((_request, response) => response.end('twelve bytes'))

    const { status, body } = await ask(site, 'HEAD / HTTP/1.1\r\nHost: a\r\n')

    expect(status).toBe(200)
    expect(body).toHaveLength(0)
  })

  it('answers requests that came in one write in their order', async () => {
    await using site = await serve(async ({ url }, response) => {
      for (let turns = url === '/0' ? 50 : 0; turns > 0; turns--) await new Promise(setImmediate)
      response.end(url)
    })
    const client = await RawClient.connect(site.port)

    client.write([0, 1, 2].map((n) => `GET /${n} HTTP/1.1\r\nHost: a\r\n\r\n`).join(''))

    const bodies: string[] = []
    for (let n = 0; n < 3; n++) bodies.push((await client.answer()).body.toString())
    expect(bodies).toEqual(['/0', '/1', '/2'])
    client.close()
  })

  it('is told when its client leaves, and its time-out costs nobody else theirs', async () => {
    const begun = deferred()
    const left = deferred()
    await using site = await serve(
      ({ url }, response) => {
        if (url === '/wait') {
          response.once('close', () => left.resolve())
          begun.resolve()
        } else {
          response.end('fine')
        }
      },
      { worker: { concurrency: 1 } },
    )
    const client = await RawClient.connect(site.port)
    client.write('GET /wait HTTP/1.1\r\nHost: a\r\n\r\n')
    await begun.promise
    client.close()

    await left.promise
    expect((await ask(site)).body.toString()).toBe('fine')
  })

  it('does not end the process by writing behind the end', async () => {
    await using site = await serve((_request, response) => {
      response.end('fine')
      response.write('more')
    })

    expect((await ask(site)).body.toString()).toBe('fine')
    expect((await ask(site)).body.toString()).toBe('fine')
    expect(site.log[0]?.message).toBe('the view of GET / failed')
  })

  it('is refused what it pipes when nobody wants it any more', async () => {
    const wentOn = deferred()
    let read = 0
    function* endless(): Generator<string> {
      for (;;) {
        read++
        yield 'x'.repeat(10_000)
      }
    }
    await using site = await serve(
      async (_request, response) => {
        await once(response, 'close')
        Readable.from(endless()).pipe(response)
        await new Promise(setImmediate)
        wentOn.resolve()
      },
      { http: { responseMs: 300 } },
    )

    expect((await ask(site)).status).toBe(504)
    await wentOn.promise
    expect(read).toBeLessThan(100)
  })

  it('cuts nothing by failing late', async () => {
    const failed = deferred()
    const app = express()
    app.get('/late', async (_request, response, next) => {
      await once(response, 'close')
      next(new Error('too late'))
      failed.resolve()
    })
    app.get('/slow', async (_request, response) => {
      await failed.promise
      for (let turns = 0; turns < 20; turns++) await new Promise(setImmediate)
      response.send('slow')
    })
    app.use(
      (_error: Error, request: express.Request, _response: express.Response, _next: () => void) => {
        request.socket.destroy()
      },
    )
    await using site = await serveSite(carrier, { app, http: { responseMs: 2_000 } })
    const client = await RawClient.connect(site.port)

    client.write('GET /late HTTP/1.1\r\nHost: a\r\n\r\n')
    expect((await client.answer()).status).toBe(504)
    client.write('GET /slow HTTP/1.1\r\nHost: a\r\n\r\n')

    expect((await client.answer()).body.toString()).toBe('slow')
    client.close()
  })

  it('calls back, deferred or late', async () => {
    let calls = 0
    await using site = await serve(
      async (request, response) => {
        if (request.url === '/defer') {
          defer(request)
          const { backend, content } = messageOf(request)
          await new Promise<void>((resolve) => response.end('not this', () => resolve()))
          calls++
          await Channel(content.reply_channel, { backend }).send({ content: 'this' })
        } else if (request.url === '/late') {
          await once(response, 'close')
          await new Promise<void>((resolve) => response.write('late', () => resolve()))
          await new Promise<void>((resolve) => response.end(() => resolve()))
          calls++
        } else {
          response.end('fine')
        }
      },
      { http: { responseMs: 300 }, worker: { concurrency: 1 } },
    )

    expect((await ask(site, 'GET /defer HTTP/1.1\r\nHost: a\r\n')).body.toString()).toBe('this')
    expect((await ask(site, 'GET /late HTTP/1.1\r\nHost: a\r\n')).status).toBe(504)
    await askUntilFine(site)
    expect(calls).toBe(2)
  })

  it('frees its place when it never answers', async () => {
    await using site = await serve(
      ({ url }, response) => (url === '/' ? response.end('fine') : new Promise(() => {})),
      { http: { responseMs: 300 }, worker: { concurrency: 1 } },
    )

    expect((await ask(site, 'GET /never HTTP/1.1\r\nHost: a\r\n')).status).toBe(504)
    await askUntilFine(site)
  })

  it('streams to more clients than consumers run at once', async () => {
    await using site = await serve(
      ({ url }, response) => {
        if (url === '/') response.end('fine')
        else response.write('begun')
      },
      { worker: { concurrency: 2 } },
    )
    const clients = await Promise.all(
      Array.from({ length: 10 }, () => RawClient.connect(site.port)),
    )
    for (const client of clients) {
      client.write('GET /stream HTTP/1.1\r\nHost: a\r\n\r\n')
      await client.until('begun')
    }

    expect((await ask(site)).body.toString()).toBe('fine')
    for (const client of clients) client.close()
  })

  it('loses a client that takes nothing of its answer', async () => {
    const large = Buffer.alloc(30_000_000)
    await using site = await serve(
      ({ url }, response) => {
        if (url === '/') response.end('fine')
        else response.end(large)
      },
      { http: { drainMs: 700 } },
    )
    const client = await RawClient.connect(site.port)
    client.socket.pause()
    client.write('GET /large HTTP/1.1\r\nHost: a\r\n\r\n')

    while (site.servers.counters()['closed.slow-reader'] !== 1) await new Promise(setImmediate)
    expect((await ask(site)).body.toString()).toBe('fine')
    client.close()
  })
})

describe.each(carriers)('A fetch app over %s', (carrier) => {
  const text = new TextEncoder()

  it('sends the head of a stream that is silent at first', async () => {
    const goOn = deferred()
    const app = {
      fetch: () =>
        new Response(
          new ReadableStream({
            async pull(controller) {
              await goOn.promise
              controller.enqueue(text.encode('data: 1\n\n'))
              controller.close()
            },
          }),
          { headers: { 'content-type': 'text/event-stream' } },
        ),
    }
    await using site = await serveSite(carrier, { app, http: { responseMs: 300 } })
    const client = await RawClient.connect(site.port)
    client.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n')

    await client.until('text/event-stream')
    goOn.resolve()
    await client.until('data: 1')
    client.close()
  })

  it.each([
    ['one string', ['one'], 'one'],
    ['several', ['one ', 'two'], 'one two'],
    ['none', [], ''],
    ['an empty one', [''], ''],
  ])('streams strings: %s', async (_what, chunks, expected) => {
    const app = {
      fetch: () =>
        new Response(
          new ReadableStream<string>({
            start(controller) {
              for (const chunk of chunks) controller.enqueue(chunk)
              controller.close()
            },
          }) as unknown as ReadableStream<Uint8Array<ArrayBuffer>>,
        ),
    }
    await using site = await serveSite(carrier, { app })

    const response = await fetch(`http://127.0.0.1:${site.port}/`)

    expect(response.status).toBe(200)
    expect(await response.text()).toBe(expected)
  })

  it('gives up the stream, and its place, of a client that left before its first part', async () => {
    let cancelled = 0
    const made = [deferred(), deferred(), deferred()]
    let count = 0
    const app = {
      fetch: (request: Request) => {
        if (new URL(request.url).pathname === '/') return new Response('fine')
        made[count++]?.resolve()
        return new Response(
          new ReadableStream({
            pull: () => new Promise<void>(() => {}),
            cancel() {
              cancelled++
            },
          }),
        )
      },
    }
    await using site = await serveSite(carrier, { app, worker: { concurrency: 1, maxStreams: 0 } })
    for (const each of made) {
      const client = await RawClient.connect(site.port)
      client.write('GET /stream HTTP/1.1\r\nHost: a\r\n\r\n')
      await each.promise
      client.close()
    }

    expect(await (await fetch(`http://127.0.0.1:${site.port}/`)).text()).toBe('fine')
    expect(cancelled).toBe(3)
  })

  it.each(['3, 5', '-1', 'x'])('gets 500 for the content-length %s', async (length) => {
    const app = { fetch: () => new Response('abc', { headers: { 'content-length': length } }) }
    await using site = await serveSite(carrier, { app })

    const response = await fetch(`http://127.0.0.1:${site.port}/`)

    expect(response.status).toBe(500)
    expect(site.log).toHaveLength(1)
  })

  it('survives a client whose second request waits behind an open one', async () => {
    const late = deferred()
    const app = {
      fetch: async (request: Request) => {
        const { pathname } = new URL(request.url)
        if (pathname === '/') return new Response('fine')
        return new Response(
          new ReadableStream({
            async pull(controller) {
              if (pathname === '/late') {
                await late.promise
                controller.enqueue(text.encode('late'))
                controller.close()
              } else {
                controller.enqueue(text.encode('open'))
                await new Promise(() => {})
              }
            },
          }),
        )
      },
    }
    await using site = await serveSite(carrier, { app, http: { responseMs: 300 } })
    const client = await RawClient.connect(site.port)
    client.write('GET /open HTTP/1.1\r\nHost: a\r\n\r\nGET /late HTTP/1.1\r\nHost: a\r\n\r\n')
    await client.until('open')
    for (let turns = 0; turns < 50; turns++) await new Promise(setImmediate)
    late.resolve()

    expect(await (await fetch(`http://127.0.0.1:${site.port}/`)).text()).toBe('fine')
    client.close()
  })
})
