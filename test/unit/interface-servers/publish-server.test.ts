import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { type Config, defineChannels, Site } from 'channelkit'
import type { BackendOptions } from 'channelkit/backend'
import { attach, createHttpServer } from 'channelkit/server'
import { FakeClock } from 'channelkit/testing'
import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { BreakableBackend } from '../../support/breakable-backend.ts'
import { RawClient } from '../../support/raw-client.ts'

const token = 't'.repeat(32)
const limited = 'l'.repeat(40)
const path = '/channelkit/publish'

const channels = defineChannels({
  orders: { schema: z.object({ id: z.number() }) },
  broken: {
    schema: {
      '~standard': {
        version: 1,
        vendor: 'test',
        validate: () => {
          throw new TypeError('a secret of the site')
        },
      },
    },
  },
})

const publish = {
  tokens: [token, { token: limited, channels: ['orders', '*mail*'], groups: ['chat-*'] }],
}

/** An interface server on a real port, without a worker. */
async function serve(config: Config = {}, options: BackendOptions = {}, { http = true } = {}) {
  const clock = new FakeClock()
  const backend = new BreakableBackend({ clock, capacity: 3, ...options })
  const logged: unknown[] = []
  const quiet = () => {}
  const error = (facts: object) => {
    logged.push(facts)
  }
  const site = await Site.load(
    { channels, publish, channelBackends: { default: { backend } }, ...config },
    { logger: { debug: quiet, info: quiet, warn: quiet, error } },
  )
  const server = createHttpServer()
  const servers = await attach(server, site, { http })
  if (!http) {
    server.on('request', (request, response) => {
      if (!servers.handlePublish(request, response)) response.end('own')
    })
  }
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const post = async (body: unknown, init: RequestInit & { readonly at?: string } = {}) => {
    const response = await fetch(`http://127.0.0.1:${port}${init.at ?? path}`, {
      method: 'POST',
      body: typeof body === 'string' ? body : JSON.stringify(body),
      ...init,
      headers: {
        authorization: `Bearer ${token}`,
        'content-type': 'application/json',
        ...init.headers,
      },
    })
    const text = await response.text()
    return { response, status: response.status, answer: text === '' ? {} : JSON.parse(text) }
  }
  const received = async (...names: readonly string[]) =>
    (await backend.receive(names, { max: 100, waitMs: 0 })).map(({ content }) => content)
  return {
    port,
    clock,
    backend,
    servers,
    logged,
    post,
    received,
    async [Symbol.asyncDispose]() {
      server.close()
      await servers.close()
      server.closeAllConnections()
      await site.close()
    },
  }
}

describe('PublishServer', () => {
  it('sends to a channel, to a group, and a list of both in order', async () => {
    await using site = await serve()
    await site.backend.groupAdd([{ group: 'a room!', channel: 'screen' }])

    const one = await site.post({ channel: 'orders', content: { id: 1 } })
    const group = await site.post({ group: 'a room!', content: { content: 'é' } })
    const list = await site.post([
      { channel: 'screen', content: { n: 1 } },
      { group: 'a room!', content: { n: 2 } },
      { channel: 'orders', content: { id: 2, extra: 'left out by the schema' } },
    ])

    expect([one.status, one.answer, group.answer, list.answer]).toEqual([
      200,
      { sent: 1 },
      { sent: 1 },
      { sent: 3 },
    ])
    expect(one.response.headers.get('content-type')).toBe('application/json')
    expect(one.response.headers.get('cache-control')).toBe('no-store')
    expect(await site.received('orders')).toEqual([{ id: 1 }, { id: 2 }])
    expect(await site.received('screen')).toEqual([{ content: 'é' }, { n: 1 }, { n: 2 }])
    expect(site.servers.counters()).toMatchObject({ 'publish.sent': 5 })
  })

  it.each([
    ['none', { authorization: '' }],
    ['an unknown one', { authorization: `Bearer ${'x'.repeat(32)}` }],
    ['a part of one', { authorization: `Bearer ${token.slice(1)}` }],
    ['another scheme', { authorization: `Basic ${token}` }],
    ['two at once', { authorization: `Bearer ${token} ${limited}` }],
  ])('answers 401 to who has no token: %s', async (_which, headers) => {
    await using site = await serve()

    for (const method of ['POST', 'PUT', 'OPTIONS', 'DELETE']) {
      const { response, status, answer } = await site.post('no JSON', { method, headers })
      expect([method, status, answer.error.code]).toEqual([method, 401, 'ERR_UNAUTHORIZED'])
      expect(response.headers.get('www-authenticate')).toBe('Bearer realm="channelkit"')
      expect(response.headers.get('access-control-allow-origin')).toBeNull()
    }
    expect(site.servers.counters()).toMatchObject({ 'publish.ERR_UNAUTHORIZED': 4 })
    expect(await site.backend.channels()).toEqual([])
  })

  it.each([
    [{ channel: 'orders', content: { id: 1 } }, 200],
    [{ channel: 'new-mail.2', content: {} }, 200],
    [{ group: 'chat-1', content: {} }, 200],
    [{ channel: 'other', content: {} }, 403],
    [{ group: 'other', content: {} }, 403],
    [{ group: 'orders', content: {} }, 403],
    [{ channel: 'websocket.mail', content: {} }, 403],
  ])('keeps a limited token to what it may: %j is answered by %i', async (message, expected) => {
    await using site = await serve()
    const headers = { authorization: `bearer ${limited}` }

    const { status, answer } = await site.post(message, { headers })

    expect(status).toBe(expected)
    if (expected === 403) expect(answer.error.code).toBe('ERR_FORBIDDEN')
  })

  it.each(['http.request', 'websocket.receive', '__channels__.gone', 'websocket.'])(
    'lets nobody make up what clients do, on %s',
    async (channel) => {
      await using site = await serve()

      const { status, answer } = await site.post({ channel, content: {} })

      expect([status, answer.error.code]).toEqual([403, 'ERR_FORBIDDEN'])
      expect(await site.backend.channels()).toEqual([])
    },
  )

  it.each([
    ['a broken body', '{"channel": ', 400, 'ERR_BAD_REQUEST', /^the body is not JSON: /],
    ['an empty body', '', 400, 'ERR_BAD_REQUEST', /^the body is not JSON: /],
    ['text', '"orders"', 422, 'ERR_INVALID_ARGUMENT', /^a message is a string; send/],
    ['null', 'null', 422, 'ERR_INVALID_ARGUMENT', /^a message is null; send/],
    ['no target', { content: {} }, 422, 'ERR_INVALID_ARGUMENT', /has no channel and no group/],
    [
      'two targets',
      { channel: 'a', group: 'b', content: {} },
      422,
      'ERR_INVALID_ARGUMENT',
      /has a channel and a group/,
    ],
    [
      'a misspelt key',
      { chanel: 'a', content: {} },
      422,
      'ERR_INVALID_ARGUMENT',
      /unknown key "chanel"/,
    ],
    ['a bad channel', { channel: 'a b', content: {} }, 422, 'ERR_INVALID_NAME', /character " "/],
    ['a channel of no text', { channel: 1, content: {} }, 422, 'ERR_INVALID_NAME', /a string/],
    ['a bad group', { group: '', content: {} }, 422, 'ERR_INVALID_NAME', /is empty/],
    ['no content', { channel: 'a' }, 422, 'ERR_INVALID_CONTENT', /^content is undefined/],
    ['a list as content', { channel: 'a', content: [] }, 422, 'ERR_INVALID_CONTENT', /an array/],
    [
      'content against its schema',
      { channel: 'orders', content: { id: 'x' } },
      422,
      'ERR_INVALID_CONTENT',
      /"orders" does not fit its schema; id: /,
    ],
    [
      'content nested too deep',
      `{"channel":"a","content":{"a":${'['.repeat(9_000)}${']'.repeat(9_000)}}}`,
      422,
      'ERR_INVALID_CONTENT',
      /nested deeper/,
    ],
    [
      'too large content',
      { channel: 'a', content: { text: 'x'.repeat(1_100_000) } },
      413,
      'ERR_CONTENT_TOO_LARGE',
      /./,
    ],
    ['a large body', 'x'.repeat(2_621_441), 413, 'ERR_REQUEST_TOO_LARGE', /over 2621440 bytes/],
    [
      'a time without a zone',
      { channel: 'a', content: {}, at: '2030-01-01T08:00' },
      422,
      'ERR_INVALID_ARGUMENT',
      /^at of a message on a is "2030-01-01T08:00"; give a time like/,
    ],
    [
      'a delay that is text',
      { channel: 'a', content: {}, delayMs: '5' },
      422,
      'ERR_INVALID_ARGUMENT',
      /^delayMs of a message on a is "5"; give 0 or more/,
    ],
    [
      'a bad id behind a good message',
      [
        { channel: 'a', content: {} },
        { channel: 'a', content: {}, id: 'a b' },
      ],
      422,
      'ERR_INVALID_ARGUMENT',
      /^the id of a message is "a b"/,
    ],
    [
      'a later message to a group',
      { group: 'a', content: {}, delayMs: 5 },
      422,
      'ERR_NOT_SUPPORTED',
      /a message to a group cannot wait/,
    ],
    [
      'a later message to a client',
      { channel: 'a!b', content: {}, delayMs: 5 },
      422,
      'ERR_INVALID_ARGUMENT',
      /a message for a reply channel cannot wait/,
    ],
    ['an empty list', [], 422, 'ERR_INVALID_ARGUMENT', /^the list is empty/],
    [
      'a long list',
      Array.from({ length: 101 }, () => ({ channel: 'a', content: {} })),
      413,
      'ERR_REQUEST_TOO_LARGE',
      /^the list has 101 messages; send at most 100/,
    ],
  ])('refuses %s', async (_what, body, status, code, message) => {
    await using site = await serve()

    const refused = await site.post(body)

    expect(refused.status).toBe(status)
    expect(refused.answer).toMatchObject({
      error: { code, message: expect.stringMatching(message) },
    })
    expect(refused.answer.sent).toBe(0)
    expect(site.servers.counters()).toMatchObject({ [`publish.${code}`]: 1 })
    expect(await site.backend.channels()).toEqual([])
  })

  it('sends for later, and once what has an id', async () => {
    await using site = await serve()
    const at = new Date(site.clock.now() + 2_000)

    const { answer } = await site.post([
      { channel: 'a', content: { n: 1 }, delayMs: 3_000 },
      { channel: 'a', content: { n: 2 }, at: at.toISOString() },
      { channel: 'a', content: { n: 3 }, at: at.getTime() + 1, id: 'third' },
      { channel: 'a', content: { n: 4 }, delayMs: 0, id: 'third' },
      { channel: 'a', content: { n: 5 } },
    ])

    expect(answer).toEqual({ sent: 5 })
    expect(await site.received('a')).toEqual([{ n: 5 }])
    await site.clock.advance(1_999)
    expect(await site.received('a')).toEqual([])
    await site.clock.advance(1_001)
    expect(await site.received('a')).toEqual([{ n: 2 }, { n: 3 }, { n: 1 }])
  })

  it('refuses other methods, types and bytes that are no text', async () => {
    await using site = await serve()
    const body = JSON.stringify({ channel: 'a', content: {} })

    const put = await site.post(body, { method: 'PUT' })
    const form = await site.post(body, { headers: { 'content-type': 'text/plain' } })
    const zipped = await site.post(body, { headers: { 'content-encoding': 'gzip' } })
    const latin = await site.post(body, { body: Buffer.from('{"channel":"é"}', 'latin1') })

    expect([put.status, put.response.headers.get('allow')]).toEqual([405, 'POST'])
    expect(form.status).toBe(415)
    expect([zipped.status, zipped.answer.error.message]).toEqual([
      415,
      'the body is in "gzip"; send it as it is',
    ])
    expect([latin.status, latin.answer.error.message]).toEqual([
      400,
      'the body is not JSON: it is not UTF-8',
    ])
  })

  it('sends nothing of a list with a wrong message, and says which it is', async () => {
    await using site = await serve()

    const { status, answer } = await site.post([
      { channel: 'a', content: {} },
      { channel: 'orders', content: {} },
    ])

    expect(status).toBe(422)
    expect(answer).toMatchObject({ error: { code: 'ERR_INVALID_CONTENT', index: 1 }, sent: 0 })
    expect(await site.backend.channels()).toEqual([])
  })

  it('tells which messages found their channel full', async () => {
    await using site = await serve()
    const message = (channel: string) => ({ channel, content: {} })

    const { status, response, answer } = await site.post([
      ...['a', 'a', 'a', 'a', 'b'].map(message),
      { group: 'nobody', content: {} },
    ])

    expect([status, response.headers.get('retry-after')]).toEqual([503, '1'])
    expect(answer).toMatchObject({
      error: { code: 'ERR_CHANNEL_FULL' },
      sent: 5,
      failures: [{ index: 3, code: 'ERR_CHANNEL_FULL' }],
    })
    expect(site.servers.counters()).toMatchObject({
      'publish.sent': 5,
      'publish.ERR_CHANNEL_FULL': 1,
    })
  })

  it('answers 503 while the backend is away, and goes on when it is back', async () => {
    await using site = await serve()
    const message = { channel: 'a', content: {} }
    const group = { group: 'g', content: {} }
    await site.backend.groupAdd([{ group: 'g', channel: 'member' }])

    site.backend.breaks()
    const away = await site.post([group, message, group])
    site.backend.mends()
    const back = await site.post(message)

    expect([away.status, away.response.headers.get('retry-after')]).toEqual([503, '1'])
    expect(away.answer).toMatchObject({
      error: { code: 'ERR_BACKEND_UNAVAILABLE' },
      sent: 1,
      failures: [{ index: 1 }, { index: 2 }],
    })
    expect(back.status).toBe(200)
    expect(await site.received('member')).toHaveLength(1)
  })

  it('keeps a fault of the site to itself', async () => {
    await using site = await serve()

    const { status, answer } = await site.post({ channel: 'broken', content: {} })

    expect(status).toBe(500)
    expect(answer.error).toEqual({
      code: 'ERR_INTERNAL',
      message: 'the message could not be sent; see the log',
    })
    expect(site.logged).toMatchObject([{ err: { message: 'a secret of the site' } }])
    expect(site.servers.counters()).toMatchObject({ 'publish.failed': 1 })
  })

  it('has its exact path alone, before the static files and the app of the site', async () => {
    await using site = await serve({ staticFiles: { '/': './test' } })
    const message = { channel: 'a', content: {} }

    const statuses: Record<string, number> = {}
    for (const at of [path, `${path}?x=1`, `${path}/`, '/channelkit/publish2', '/channelkit']) {
      const response = await fetch(`http://127.0.0.1:${site.port}${at}`, {
        method: 'POST',
        headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
        body: JSON.stringify(message),
      })
      statuses[at] = response.status
    }

    expect(Object.values(statuses)).toEqual([200, 200, 405, 405, 405])
    expect(await site.received('a')).toHaveLength(2)
  })

  it('is not there without a section in the config', async () => {
    await using site = await serve({ publish: undefined, staticFiles: { '/': './test' } })

    const response = await fetch(`http://127.0.0.1:${site.port}${path}`)

    expect(response.status).toBe(404)
  })

  it('answers on a server of one’s own, whose other requests it leaves alone', async () => {
    await using site = await serve({}, {}, { http: false })

    const sent = await site.post({ channel: 'a', content: {} })
    const other = await fetch(`http://127.0.0.1:${site.port}/`)

    expect([sent.status, await other.text()]).toEqual([200, 'own'])
    expect(await site.received('a')).toHaveLength(1)
  })

  it('gives leave to send a body to who has a token, and to nobody else', async () => {
    await using site = await serve()
    const body = JSON.stringify({ channel: 'a', content: {} })
    const head = (given: string) =>
      `POST ${path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${given}\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\nExpect: 100-continue\r\n\r\n`
    const [known, unknown] = [
      await RawClient.connect(site.port),
      await RawClient.connect(site.port),
    ]

    unknown.write(head('x'.repeat(32)))
    known.write(head(token))

    const refused = await unknown.answer()
    expect([refused.status, (await known.answer()).status]).toEqual([401, 100])
    known.write(body)
    expect((await known.answer()).status).toBe(200)
    known.close()
    unknown.close()
  })

  it('answers 408 to a body that comes too slowly', async () => {
    await using site = await serve()
    const client = await RawClient.connect(site.port)
    client.write(
      `POST ${path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${token}\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n{`,
    )
    const answered = client.answer()

    while (site.servers.counters()['publish.ERR_BAD_REQUEST'] === undefined) {
      await site.clock.advance(10_000)
      await new Promise(setImmediate)
    }

    expect((await answered).status).toBe(408)
    client.close()
  })
})
