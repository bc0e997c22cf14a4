import { Channel, defineRouting, encodeResponse, type HttpResponse, type Message } from 'channelkit'
import { TestSite, type TestSiteConfig, type TestSiteOptions } from 'channelkit/testing'
import { describe, expect, it } from 'vitest'
import { deferred } from '../../support/deferred.ts'

type Answer = (message: Message<'http.request'>) => Promise<void> | void

function siteWith(
  answer: Answer,
  config: TestSiteConfig = {},
  options: TestSiteOptions = {},
): Promise<TestSite> {
  const routing = defineRouting({ 'http.request': answer })
  return TestSite.open({ routing, ...config }, options)
}

const replying = (content: HttpResponse) => (message: Message<'http.request'>) =>
  message.replyChannel.send(content)

describe('HttpServer', () => {
  it('carries a request to its consumer, and the answer back', async () => {
    let seen: unknown
    await using site = await siteWith(async (message) => {
      const { reply_channel, headers, ...rest } = message.content
      seen = rest
      await message.replyChannel.send(await encodeResponse(new Response('Hello world!')))
    })

    const response = await site.request('https://example.com/caf%C3%A9?x=1', {
      method: 'POST',
      headers: { cookie: 'a=1' },
      body: 'body',
    })

    expect(response.status).toBe(200)
    expect(await response.text()).toBe('Hello world!')
    expect(seen).toMatchObject({
      method: 'POST',
      scheme: 'https',
      http_version: '1.1',
      path: '/café',
      raw_path: '/caf%C3%A9',
      query_string: 'x=1',
      cookies: { a: '1' },
      client: ['127.0.0.1', expect.any(Number)],
      body: new TextEncoder().encode('body'),
    })
    expect(site.counters()).toMatchObject({ requests: 1 })
  })

  it('leaves the body out where there is none', async () => {
    let hasBody = true
    await using site = await siteWith(async (message) => {
      hasBody = 'body' in message.content
      await message.replyChannel.send({})
    })

    await site.request('/')

    expect(hasBody).toBe(false)
  })

  it('answers many at once, each its own', async () => {
    await using site = await siteWith((message) =>
      message.replyChannel.send({ content: message.content.path }),
    )

    const paths = Array.from({ length: 50 }, (_, n) => `/${n}`)
    const texts = await Promise.all(paths.map(async (path) => (await site.request(path)).text()))

    expect(texts).toEqual(paths)
  })

  describe('writes an answer', () => {
    it('with duplicate headers and several cookies', async () => {
      await using site = await siteWith(
        replying({
          headers: [
            ['set-cookie', 'a=1'],
            ['Vary', 'accept'],
            ['set-cookie', 'b=2'],
            ['vary', 'cookie'],
          ],
        }),
      )

      const { headers } = await site.request('/')

      expect(headers.getSetCookie()).toEqual(['a=1', 'b=2'])
      expect(headers.get('vary')).toBe('accept, cookie')
    })

    it('with its content type and length', async () => {
      await using site = await siteWith(replying({ content_type: 'text/html', content: 'é' }))

      const { headers } = await site.request('/')

      expect(headers.get('content-type')).toBe('text/html')
      expect(headers.get('content-length')).toBe('2')
    })

    it.each([204, 304])('of status %i without body and length', async (status) => {
      await using site = await siteWith(replying({ status }))

      const response = await site.request('/')

      expect(response.status).toBe(status)
      expect(response.headers.get('content-length')).toBe(null)
    })

    it('to HEAD, without the body but with its length', async () => {
      await using site = await siteWith(replying({ content: 'hello' }))

      const response = await site.request('/', { method: 'HEAD' })

      expect(response.headers.get('content-length')).toBe('5')
      expect(await response.text()).toBe('')
    })

    it('without the headers that are the connection’s own', async () => {
      await using site = await siteWith(
        replying({
          headers: [
            ['Transfer-Encoding', 'chunked'],
            ['Upgrade', 'websocket'],
            ['Keep-Alive', 'timeout=1000'],
          ],
          content: 'x',
        }),
      )

      const { headers } = await site.request('/')

      expect(headers.get('upgrade')).toBe(null)
      expect(headers.get('transfer-encoding')).toBe(null)
    })

    it('in parts as they come, in order', async () => {
      const held = deferred()
      await using site = await siteWith(
        async ({ replyChannel }) => {
          await replyChannel.send({ status: 202, content: 'one ', more_content: true })
          await held.promise
          await replyChannel.send({ content: 'two ', more_content: true })
          await replyChannel.send({ content: 'three' })
        },
        {},
        { patienceMs: 30 },
      )

      const response = await site.request('/')
      expect(response.status).toBe(202)
      const text = response.text()
      held.resolve()

      expect(await text).toBe('one two three')
      expect(response.headers.get('content-length')).toBe(null)
    })

    it('once, and drops what comes after its end', async () => {
      await using site = await siteWith(async ({ replyChannel }) => {
        await replyChannel.send({ content: 'first' })
        await replyChannel.send({ content: 'second' })
      })

      expect(await (await site.request('/')).text()).toBe('first')
      await site.drain()

      expect(site.counters()['dropped.gone']).toBe(1)
    })
  })

  describe('answers 500 instead of', () => {
    it.each<[string, unknown]>([
      [
        'a header with a line break in its value',
        { headers: [['x-mark', 'a\r\nset-cookie: b=1']] },
      ],
      ['a header with a line feed alone', { headers: [['x-mark', 'a\nb']] }],
      ['a header with a null character', { headers: [['x-mark', 'a\0b']] }],
      ['a header with a line break in its name', { headers: [['x-mark\r\nx', 'a']] }],
      ['a header with a colon in its name', { headers: [['x:mark', 'a']] }],
      ['a header without a name', { headers: [['', 'a']] }],
      ['a header whose value is a number', { headers: [['x-mark', 7]] }],
      ['a content type with a line break', { content_type: 'a\r\nb' }],
      ['status 99', { status: 99 }],
      ['status 101', { status: 101 }],
      ['status 600', { status: 600 }],
      ['status "200"', { status: '200' }],
      [
        'two lengths',
        {
          headers: [
            ['content-length', '1'],
            ['Content-Length', '1'],
          ],
          content: 'a',
        },
      ],
      ['two lengths in one', { headers: [['content-length', '1, 1']], content: 'a' }],
      ['a length that is no number', { headers: [['content-length', '0x1']], content: 'a' }],
      ['a body that is an object', { content: { n: 1 } }],
      ['a body that is a number', { content: 7 }],
    ])('%s', async (_what, content) => {
      await using site = await siteWith(replying(content as HttpResponse))

      const response = await site.request('/')

      expect(response.status).toBe(500)
      expect(response.headers.get('x-mark')).toBe(null)
      expect(site.counters()['dropped.bad-reply']).toBe(1)
      await site.expectError()
    })
  })

  it('cuts an answer whose later part cannot be sent', async () => {
    const held = deferred()
    await using site = await siteWith(async ({ replyChannel }) => {
      await replyChannel.send({ content: 'one', more_content: true })
      await held.promise
      await replyChannel.send({ content: 7 } as never)
    })

    const response = await site.request('/')
    const text = response.text()
    held.resolve()

    await expect(text).rejects.toThrow('aborted')
    await site.expectError('send a string or bytes')
  })

  it('answers 413 to a body over the limit', async () => {
    await using site = await siteWith(replying({}), { http: { maxBodyBytes: 10 } })

    expect((await site.request('/', { method: 'POST', body: 'x'.repeat(10) })).status).toBe(200)
    expect((await site.request('/', { method: 'POST', body: 'x'.repeat(11) })).status).toBe(413)
  })

  it('answers 400 to a path that cannot be decoded, without asking a consumer', async () => {
    await using site = await siteWith(replying({}))

    const response = await site.request('/%ff')

    expect(response.status).toBe(400)
    expect(site.counters()).toMatchObject({ 'requests.ERR_BAD_REQUEST': 1 })
    expect(site.counters()).not.toHaveProperty('run')
  })

  it('answers 503 with Retry-After when http.request is full', async () => {
    const held = deferred()
    await using site = await siteWith(
      async ({ replyChannel }) => {
        await held.promise
        await replyChannel.send({})
      },
      { worker: { concurrency: 1 } },
      { backend: { capacity: 1 } },
    )

    const first = site.request('/1')
    await site.advance(0)
    const second = site.request('/2')
    await site.advance(0)
    const third = await site.request('/3')
    held.resolve()

    expect(third.status).toBe(503)
    expect(third.headers.get('retry-after')).toBe('1')
    expect([(await first).status, (await second).status]).toEqual([200, 200])
  })

  it('answers 503 where no worker listens, after waiting for one', async () => {
    await using site = await TestSite.open({}, { workers: false })

    const answer = site.request('/')
    await site.advance(4_900)
    expect(site.counters()).not.toHaveProperty('requests.no-worker')
    await site.advance(100)

    const response = await answer
    expect(response.status).toBe(503)
    expect(response.headers.get('retry-after')).toBe('5')
  })

  it('answers 504 when no answer comes in time', async () => {
    await using site = await siteWith(() => {})

    const answer = site.request('/')
    await site.advance(30_500)

    expect((await answer).status).toBe(504)
    expect(site.counters()['requests.timed-out']).toBe(1)
  })

  it('does not time out an answer that has begun', async () => {
    const held = deferred()
    await using site = await siteWith(async ({ replyChannel }) => {
      await replyChannel.send({ content: 'slow', more_content: true })
      await held.promise
      await replyChannel.send({ content: 'ly' })
    })

    const answer = site.request('/')
    await site.advance(120_000)
    held.resolve()

    expect(await (await answer).text()).toBe('slowly')
  })

  it('tells the consumer of http.disconnect that a client has left, and drops the answer', async () => {
    const held = deferred()
    const left: string[] = []
    const routing = defineRouting({
      'http.request': async (message) => {
        await held.promise
        await message.replyChannel.send({})
      },
      'http.disconnect': (message) => {
        left.push(message.content.path)
      },
    })
    await using site = await TestSite.open({ routing })
    const leaving = new AbortController()

    const answer = site.request('/slow', { signal: leaving.signal })
    await site.advance(0)
    leaving.abort()
    await expect(answer).rejects.toThrow('abort')
    held.resolve()
    await site.drain()

    expect(left).toEqual(['/slow'])
    expect(site.counters()).toMatchObject({ 'requests.aborted': 1, 'dropped.gone': 1 })
  })

  it('believes forwarded addresses of trusted proxies', async () => {
    let client: unknown
    await using site = await siteWith(
      async (message) => {
        client = message.content.client
        await message.replyChannel.send({})
      },
      { http: { trustedProxies: ['127.0.0.1'] } },
    )

    await site.request('/', { headers: { 'x-forwarded-for': '203.0.113.7' } })

    expect(client).toEqual(['203.0.113.7', 0])
  })
})

describe('viewConsumer', () => {
  it('hands each request to the app', async () => {
    const app = {
      fetch: async (request: Request) =>
        new Response(`${request.method} ${request.url} ${await request.text()}`, { status: 201 }),
    }
    await using site = await TestSite.open({ app })

    const response = await site.request('/a?x=1', { method: 'PUT', body: 'body' })

    expect(response.status).toBe(201)
    expect(await response.text()).toBe('PUT http://localhost/a?x=1 body')
  })

  it.each([
    ['development', /Error: broken\n {4}at /],
    ['production', /^Internal Server Error\nRequest [\w-]{10}\n$/],
  ] as const)('answers 500 to a failure, in %s', async (mode, text) => {
    const app = {
      fetch: () => {
        throw new Error('broken')
      },
    }
    await using site = await TestSite.open({ app, mode })

    const response = await site.request('/')

    expect(response.status).toBe(500)
    expect(await response.text()).toMatch(text)
    await site.expectError('broken')
  })

  it('answers 400 to a Host that makes no URL', async () => {
    await using site = await TestSite.open({ app: { fetch: () => new Response() } })

    const response = await site.request('/', { headers: { host: 'a b' } })

    expect(response.status).toBe(400)
  })

  it('may be called from a consumer through a channel', async () => {
    await using site = await TestSite.open({ app: { fetch: () => new Response('from the view') } })
    const { encodeRequest } = await import('channelkit')

    await Channel('http.request').send(
      await encodeRequest(new Request('http://localhost/'), 'answers'),
    )

    const [answer] = await site.receive('answers')
    expect(answer?.content).toMatchObject({ status: 200 })
  })
})
