import { describe, expect, it } from 'vitest'
import { carriers, serveDirectly, serveSite } from '../../support/http-site.ts'
import { askAll, type Step } from '../../support/page-browser.ts'
import { createExpressApp } from '../../support/view-apps/express-app.ts'

const json = { 'content-type': 'application/json' }
const form = { 'content-type': 'application/x-www-form-urlencoded' }
const text = { 'content-type': 'text/plain' }

function upload(size: number): RequestInit {
  const body = new FormData()
  body.append('title', 'größer')
  body.append('file', new Blob([Buffer.alloc(size, 'abc')]), 'a file.bin')
  return { method: 'POST', body }
}

/** What the app's own tests ask of it, one browser each. */
const scripts: Record<string, readonly Step[]> = {
  'a page': [['/']],
  'HEAD of a page': [['/', { method: 'HEAD' }]],
  'OPTIONS of a page': [['/', { method: 'OPTIONS' }]],
  'a page that is not there': [['/nowhere']],
  'a query': [['/json?a=1&a=2&b[c]=3&d=%20+']],
  'a JSON body': [['/json', { method: 'POST', headers: json, body: '{"a":["ü"]}' }]],
  'a malformed JSON body': [['/json', { method: 'POST', headers: json, body: '{' }]],
  'an empty JSON body': [['/json', { method: 'POST', headers: json, body: '' }]],
  'a form': [['/form', { method: 'POST', headers: form, body: 'a=1&b=%C3%BC&c[]=2' }]],
  'a text of 2 MiB': [['/text', { method: 'POST', headers: text, body: 'é'.repeat(1_048_576) }]],
  'a body read by hand': [['/raw', { method: 'PUT', body: Buffer.alloc(1_500_000, 'x') }]],
  'a small upload': [['/upload', upload(2_000)]],
  'an upload of 2 MiB': [['/upload', upload(2_097_152)]],
  'a session': [['/count'], ['/count'], ['/count']],
  'logging in, staying in and logging out': [
    ['/me'],
    ['/login', { method: 'POST', headers: form, body: 'username=ann&password=secret' }],
    ['/me'],
    ['/logout', { method: 'POST' }],
    ['/me'],
  ],
  'logging in with a wrong password': [
    ['/login', { method: 'POST', headers: form, body: 'username=ann&password=guess' }],
    ['/login'],
  ],
  'a redirect': [['/redirect']],
  'a file': [['/file']],
  'a range of a file': [['/file', { headers: { range: 'bytes=6-9' } }]],
  'a range that is not there': [['/file', { headers: { range: 'bytes=600-' } }]],
  'a download': [['/download']],
  'a static file': [['/static/hello.txt']],
  'a large static file': [['/static/large.txt']],
  'HEAD of a static file': [['/static/hello.txt', { method: 'HEAD' }]],
  'the index of a folder': [['/static/']],
  'a folder without its slash': [['/static']],
  'a way out of the folder': [['/static/..%2f..%2fexpress-app.ts']],
  'two cookies': [['/cookies']],
  'headers given twice': [['/vary']],
  'a stream': [['/stream']],
  'an answer of 3 MB': [['/big']],
  'a stream of 2 MB': [['/big-stream']],
  'a head written by hand': [['/raw-head']],
  'a head written as a list': [['/raw-list']],
  'status 204': [['/no-content']],
  'status 304': [['/not-modified']],
  'the client’s address': [['/whoami']],
  'a forwarded address': [
    ['/whoami', { headers: { 'x-forwarded-for': '203.0.113.7', 'x-forwarded-proto': 'https' } }],
  ],
  'parameters in the path': [['/params/caf%C3%A9/a/b%20c']],
  'a route that throws': [['/throws']],
  'a route that rejects': [['/rejects']],
  'an error handed on': [['/next']],
}

describe.each(carriers)('an Express app, through %s as when served directly', (carrier) => {
  it.each(Object.entries(scripts))('answers %s', async (_what, steps) => {
    await using direct = await serveDirectly(createExpressApp())
    await using site = await serveSite(carrier, { app: createExpressApp() })

    const expected = await askAll(direct.port, steps)
    const answers = await askAll(site.port, steps)

    expect(answers).toEqual(expected)
    expect(site.log).toEqual([])
  })

  it('answers a conditional request', async () => {
    await using site = await serveSite(carrier, { app: createExpressApp() })
    const url = `http://127.0.0.1:${site.port}/static/hello.txt`
    const etag = (await fetch(url)).headers.get('etag') ?? ''

    const again = await fetch(url, {
      headers: { 'if-none-match': etag, 'cache-control': 'max-age=0' },
    })

    expect(again.status).toBe(304)
    expect(await again.text()).toBe('')
  })
})
