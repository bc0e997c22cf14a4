import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
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
})
