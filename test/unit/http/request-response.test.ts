import {
  decodeRequest,
  decodeResponse,
  encodeRequest,
  encodeResponse,
  type HttpRequest,
  type HttpResponse,
  sendResponse,
} from 'channelkit'
import { describe, expect, it } from 'vitest'

const content: HttpRequest = {
  reply_channel: 'reply.a!b',
  method: 'GET',
  scheme: 'http',
  http_version: '1.1',
  path: '/a b',
  raw_path: '/a%20b',
  query_string: '',
  get: {},
  cookies: {},
  headers: [['host', 'example.com']],
  client: ['203.0.113.9', 4_711],
  server: ['192.0.2.80', 80],
}

describe('decodeRequest', () => {
  it('makes a request of the content', async () => {
    const request = decodeRequest({
      ...content,
      method: 'POST',
      scheme: 'https',
      query_string: 'x=1',
      headers: [
        ['host', 'example.com'],
        ['x-mark', 'one'],
        ['x-mark', 'two'],
        ['cookie', 'a=1; b=2'],
      ],
      body: new TextEncoder().encode('body'),
    })

    expect(request.url).toBe('https://example.com/a%20b?x=1')
    expect(request.method).toBe('POST')
    expect(request.headers.get('x-mark')).toBe('one, two')
    expect(request.headers.get('cookie')).toBe('a=1; b=2')
    expect(await request.text()).toBe('body')
  })

  it.each([
    ['GET', 'body', ''],
    ['HEAD', 'body', ''],
    ['POST', '', ''],
    ['DELETE', 'body', 'body'],
  ])('gives a %s with the body %j the text %j', async (method, body, text) => {
    const request = decodeRequest({ ...content, method, body: new TextEncoder().encode(body) })

    expect(await request.text()).toBe(text)
  })

  it('takes the address of the server where there is no Host', () => {
    expect(decodeRequest({ ...content, headers: [] }).url).toBe('http://192.0.2.80/a%20b')
  })

  it('gives OPTIONS * a path', () => {
    expect(decodeRequest({ ...content, method: 'OPTIONS', raw_path: '*' }).url).toBe(
      'http://example.com/*',
    )
  })

  it('stops with its signal', () => {
    const stopping = new AbortController()

    const request = decodeRequest(content, { signal: stopping.signal })
    stopping.abort()

    expect(request.signal.aborted).toBe(true)
  })

  it('takes the address of the server where the Host is empty', () => {
    const request = decodeRequest({ ...content, headers: [['host', '']], raw_path: '/a/b' })

    expect(request.url).toBe('http://192.0.2.80/a/b')
  })

  it.each([
    ['2001:db8::80', 'http://[2001:db8::80]:8080/a'],
    ['[2001:db8::80]', 'http://[2001:db8::80]:8080/a'],
    ['fe80::1%eth0', 'http://[fe80::1]:8080/a'],
    ['unknown', 'http://unknown:8080/a'],
  ])('makes a URL of the server %s', (address, url) => {
    const request = decodeRequest({
      ...content,
      headers: [],
      server: [address, 8_080],
      raw_path: '/a',
    })

    expect(request.url).toBe(url)
  })

  it.each([
    ['EXAMPLE.com:80', '/a"b', 'http://example.com/a%22b'],
    ['[2001:DB8::1]', '//evil.example/a', 'http://[2001:db8::1]//evil.example/a'],
    ['127.1', '/a?b', 'http://127.0.0.1/a?b'],
  ])('takes the Host %j with %j as the URL parser writes them', (host, target, url) => {
    const [raw_path = '', query_string = ''] = target.split('?')
    const headers: [string, string][] = [['host', host]]

    expect(decodeRequest({ ...content, headers, raw_path, query_string }).url).toBe(url)
  })

  it.each(['a b', 'a\tb', 'example.com:x', '[::1', 'a/b', 'a@b', 'a\\b', 'a?b', 'a#b'])(
    'refuses the Host %j',
    (host) => {
      expect(() => decodeRequest({ ...content, headers: [['host', host]] })).toThrow(
        expect.objectContaining({
          code: 'ERR_BAD_REQUEST',
          message: expect.stringContaining('check its Host'),
        }),
      )
    },
  )

  it('refuses a path that would belong to the Host', () => {
    expect(() => decodeRequest({ ...content, raw_path: '.evil.example/a' })).toThrow(
      expect.objectContaining({ code: 'ERR_BAD_REQUEST' }),
    )
  })

  it.each(['TRACE', 'CONNECT', 'a b'])('refuses the method %j by name', (method) => {
    expect(() => decodeRequest({ ...content, method })).toThrow(
      expect.objectContaining({
        code: 'ERR_BAD_REQUEST',
        message: expect.stringContaining(`the method ${JSON.stringify(method)} `),
      }),
    )
  })
})

describe('encodeRequest', () => {
  it('makes content that decodes to the same request', async () => {
    const request = new Request('https://example.com:8443/a%20b?x=1&x=2', {
      method: 'POST',
      headers: { cookie: 'a=1', 'x-mark': 'one' },
      body: 'body',
    })

    const encoded = await encodeRequest(request, 'answers')
    const decoded = decodeRequest(encoded)

    expect(encoded).toMatchObject({
      reply_channel: 'answers',
      path: '/a b',
      raw_path: '/a%20b',
      query_string: 'x=1&x=2',
      cookies: { a: '1' },
      server: ['example.com', 8_443],
    })
    expect(decoded.url).toBe('https://example.com:8443/a%20b?x=1&x=2')
    expect(decoded.headers.get('x-mark')).toBe('one')
    expect(await decoded.text()).toBe('body')
  })

  it('refuses a path that is not UTF-8 by name', async () => {
    await expect(encodeRequest(new Request('http://a/%ff'), 'answers')).rejects.toMatchObject({
      code: 'ERR_INVALID_ARGUMENT',
      message: 'the path "/%ff" is not percent-encoded UTF-8; encode it by encodeURIComponent',
    })
  })
})

describe('encodeResponse', () => {
  it('makes content of status, headers and body', async () => {
    const response = Response.json({ n: 1 }, { status: 201, headers: { 'x-mark': 'one' } })

    const encoded = await encodeResponse(response)

    expect(encoded.status).toBe(201)
    expect(encoded.headers).toContainEqual(['content-type', 'application/json'])
    expect(encoded.headers).toContainEqual(['x-mark', 'one'])
    expect(encoded.content).toEqual(new TextEncoder().encode('{"n":1}'))
  })

  it('keeps cookies apart', async () => {
    const headers = new Headers()
    headers.append('set-cookie', 'a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT')
    headers.append('set-cookie', 'b=2')

    const encoded = await encodeResponse(new Response(null, { headers }))

    expect(encoded.headers).toEqual([
      ['set-cookie', 'a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT'],
      ['set-cookie', 'b=2'],
    ])
  })
})

describe('decodeResponse', () => {
  it.each<[string, HttpResponse, number, string]>([
    ['nothing', {}, 200, ''],
    ['text', { content: 'héllo' }, 200, 'héllo'],
    ['bytes', { status: 404, content: new Uint8Array([104, 105]) }, 404, 'hi'],
    ['a status without a body', { status: 204, content: 'x' }, 204, ''],
    ['not modified', { status: 304, content: '' }, 304, ''],
  ])('makes a response of %s', async (_what, encoded, status, text) => {
    const response = decodeResponse(encoded)

    expect(response.status).toBe(status)
    expect(await response.text()).toBe(text)
  })

  it.each<[object, string, string]>([
    [{ content: 'a', more_content: true }, 'ERR_INVALID_ARGUMENT', 'the answer has more_content'],
    [{ abort: true }, 'ERR_INVALID_ARGUMENT', 'the answer is cut by abort'],
    [{ status: 101 }, 'ERR_INVALID_CONTENT', 'the status of a response is 101'],
    [{ headers: [['a b', 'c']] }, 'ERR_INVALID_CONTENT', 'a header named "a b"'],
  ])('refuses %j', (encoded, code, message) => {
    expect(() => decodeResponse(encoded)).toThrow(
      expect.objectContaining({ code, message: expect.stringContaining(message) }),
    )
  })

  it('sets the content type that stands apart, unless a header does', () => {
    const typeOf = (encoded: HttpResponse) => decodeResponse(encoded).headers.get('content-type')

    expect(typeOf({ content_type: 'text/html' })).toBe('text/html')
    expect(typeOf({ content_type: 'text/html', headers: [['Content-Type', 'text/css']] })).toBe(
      'text/css',
    )
  })

  it('keeps cookies apart', () => {
    const headers: [string, string][] = [
      ['set-cookie', 'a=1'],
      ['set-cookie', 'b=2'],
    ]

    expect(decodeResponse({ headers }).headers.getSetCookie()).toEqual(['a=1', 'b=2'])
  })
})

describe('sendResponse', () => {
  async function partsOf(response: Response): Promise<HttpResponse[]> {
    const parts: HttpResponse[] = []
    await sendResponse(response, { send: async (part) => void parts.push(part) })
    return parts
  }
  const sizeOf = ({ content: part }: HttpResponse) =>
    typeof part === 'string' ? part.length : (part?.byteLength ?? 0)

  it('sends a response without a body in one part', async () => {
    expect(await partsOf(new Response(null, { status: 304 }))).toEqual([
      { status: 304, headers: [] },
    ])
  })

  it('sends a small response in one part', async () => {
    const parts = await partsOf(new Response('hi', { status: 201 }))

    expect(parts).toMatchObject([{ status: 201, content: new Uint8Array([104, 105]) }])
    expect(parts[0]).not.toHaveProperty('more_content')
  })

  it.each([262_143, 262_144, 262_145, 600_000])(
    'sends %i bytes in parts that fit into messages',
    async (size) => {
      const parts = await partsOf(new Response(new Uint8Array(size)))

      const sizes = parts.map(sizeOf)
      expect(Math.max(...sizes)).toBeLessThanOrEqual(262_144)
      expect(sizes.reduce((sum, each) => sum + each, 0)).toBe(size)
      expect(parts.map(({ status }) => status)).toEqual(
        [200, ...parts.slice(1).fill({})].map((_, index) => (index === 0 ? 200 : undefined)),
      )
      expect(parts.findIndex(({ more_content }) => !more_content)).toBe(parts.length - 1)
    },
  )

  it('sends each part of a stream as it comes, and the head with the first', async () => {
    let source: ReadableStreamDefaultController<Uint8Array> | undefined
    const body = new ReadableStream<Uint8Array>({
      start: (controller) => {
        source = controller
      },
    })
    const parts: HttpResponse[] = []
    const sending = sendResponse(new Response(body), {
      send: async (part) => void parts.push(part),
    })

    for (const byte of [1, 2]) {
      source?.enqueue(new Uint8Array([byte]))
      for (let turn = 0; turn < 5; turn++) await new Promise(setImmediate)
      expect(parts).toHaveLength(byte)
    }
    source?.close()
    await sending

    expect(parts).toEqual([
      { status: 200, headers: [], content: new Uint8Array([1]), more_content: true },
      { content: new Uint8Array([2]), more_content: true },
      {},
    ])
  })

  it('rejects and stops reading when a part cannot be sent', async () => {
    let isCancelled = false
    const body = new ReadableStream<Uint8Array>({
      pull: (controller) => controller.enqueue(new Uint8Array(10)),
      cancel: () => {
        isCancelled = true
      },
    })

    const sending = sendResponse(new Response(body), {
      send: () => Promise.reject(new Error('gone')),
    })

    await expect(sending).rejects.toThrow('gone')
    expect(isCancelled).toBe(true)
  })

  it('rejects when the body breaks off', async () => {
    const body = new ReadableStream<Uint8Array>({
      pull: (controller) => controller.error(new Error('cut')),
    })

    await expect(sendResponse(new Response(body), { send: async () => {} })).rejects.toThrow('cut')
  })
})
