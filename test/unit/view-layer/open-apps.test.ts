import { gunzipSync } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import { carriers, serveDirectly, serveSite } from '../../support/http-site.ts'
import { askAll, type Step } from '../../support/page-browser.ts'
import { lastHeader, RawClient } from '../../support/raw-client.ts'
import { createCompressedApp } from '../../support/view-apps/compressed-app.ts'
import { createJsonServerApp } from '../../support/view-apps/json-server-app.ts'

const encodings = (value: string) => ({ headers: { 'accept-encoding': value } })
const json = (method: string, body: object, headers: object = {}): RequestInit => ({
  method,
  headers: { 'content-type': 'application/json', ...headers },
  body: JSON.stringify(body),
})

const compressed: Record<string, readonly Step[]> = {
  'a page too small to compress': [['/small']],
  'a large page': [['/large'], ['/large', encodings('br')], ['/large', encodings('deflate')]],
  'a page to who takes no encoding': [['/large', encodings('identity')]],
  'HEAD of a large page': [['/large', { method: 'HEAD' }]],
  JSON: [['/json']],
  'what was written with its length': [['/written']],
  'what must not be transformed': [['/left-alone']],
  'what does not compress': [['/bytes']],
  'status 204': [['/no-content']],
  'a failure': [['/throws']],
  'static files': [['/static/hello.txt'], ['/static/large.txt'], ['/static/']],
  'a range of a file': [['/static/large.txt', { headers: { range: 'bytes=6-9000' } }]],
}

const jsonServer: Record<string, readonly Step[]> = {
  'a long list': [['/posts']],
  'one by its number': [['/posts/7'], ['/posts/700']],
  'filters, search and operators': [
    ['/posts?views_gte=20&views_lte=40'],
    ['/posts?title=Post%202&title=Post%203'],
    ['/posts?title_like=^Post%201.$'],
    ['/comments?q=gr%C3%B6'],
  ],
  'pages, with links': [['/posts?_page=2&_limit=7'], ['/posts?_start=20&_end=23']],
  orders: [['/posts?_sort=views,title&_order=desc,asc&_limit=5']],
  'what belongs to one': [
    ['/posts/1/comments'],
    ['/posts/1?_embed=comments'],
    ['/comments/3?_expand=post'],
  ],
  'rewritten paths': [['/api/comments'], ['/blog/posts/3']],
  JSONP: [['/profile?callback=take']],
  'all of it': [['/db']],
  'creating, changing and deleting': [
    ['/posts', json('POST', { title: 'größer', tags: ['a', 'b'] })],
    ['/posts/61'],
    ['/posts/61', json('PATCH', { title: 'größte' })],
    ['/posts/61', json('PUT', { title: 'replaced' })],
    ['/posts/61', json('POST', {}, { 'x-http-method-override': 'DELETE' })],
    ['/posts/61'],
    ['/posts/1', { method: 'DELETE' }],
    ['/comments'],
    ['/posts/1/comments', json('POST', { text: 'orphan' })],
  ],
  'what has one value': [['/profile'], ['/profile', json('PUT', { name: 'Ben' })], ['/profile']],
  'a large body': [['/posts', json('POST', { title: 'x'.repeat(1_500_000) })]],
  'another origin': [
    ['/profile', { headers: { origin: 'https://elsewhere.example' } }],
    [
      '/profile',
      {
        method: 'OPTIONS',
        headers: { origin: 'https://elsewhere.example', 'access-control-request-method': 'PUT' },
      },
    ],
  ],
  'its own pages': [['/'], ['/style.css'], ['/script.js', encodings('identity')], ['/favicon.ico']],
  'what is not there': [['/nothing'], ['/nothing', { method: 'DELETE' }]],
}

describe.each(carriers)('through %s as when served directly,', (carrier) => {
  it.each([
    ...Object.entries(compressed).map(
      ([what, steps]) => [what, createCompressedApp, steps] as const,
    ),
    ...Object.entries(jsonServer).map(
      ([what, steps]) => [what, createJsonServerApp, steps] as const,
    ),
  ])('answers %s', async (_what, createApp, steps) => {
    await using direct = await serveDirectly(createApp())
    await using site = await serveSite(carrier, { app: createApp() })

    const expected = await askAll(direct.port, steps)
    const answers = await askAll(site.port, steps)

    expect(answers).toEqual(expected)
    expect(site.log).toEqual([])
  })

  it('sends compressed events at once', async () => {
    await using site = await serveSite(carrier, { app: createCompressedApp() })
    const stopping = new AbortController()

    const response = await fetch(`http://127.0.0.1:${site.port}/events`, {
      headers: { 'accept-encoding': 'gzip' },
      signal: stopping.signal,
    })
    const reader = (response.body as ReadableStream<Uint8Array>).getReader()
    let text = ''
    while (!text.includes('data: 3'))
      text += Buffer.from((await reader.read()).value ?? []).toString()
    stopping.abort()

    expect(response.headers.get('content-encoding')).toBe('gzip')
    expect(text).toBe('data: 1\n\ndata: 2\n\ndata: 3\n\n')
  })

  it('sends compressed bytes that are complete on the wire', async () => {
    await using site = await serveSite(carrier, { app: createCompressedApp() })
    const client = await RawClient.connect(site.port)

    client.write('GET /large HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n')
    const { headers, body } = await client.answer()
    client.close()

    expect(lastHeader(headers, 'content-length')).toBeUndefined()
    expect(gunzipSync(body).toString()).toBe('compressed and compressed again. '.repeat(10_000))
  })
})
