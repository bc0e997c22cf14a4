import { mkdir, mkdtemp, rm, symlink, unlink, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { brotliCompressSync, gzipSync } from 'node:zlib'
import type { Logger } from 'channelkit'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { StaticFiles } from '../../../src/interface-servers/static-files.ts'
import { lastHeader, type RawAnswer, RawClient } from '../../support/raw-client.ts'

const secret = 'what nobody may see'
const script = 'console.log(1)\n'.repeat(100)

describe.each([
  ['development', false],
  ['production', true],
])('StaticFiles in %s', (_mode, isProduction) => {
  let folder: string
  let server: Server
  let port: number
  let errors: string[]

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'channelkit-static-'))
    const root = join(folder, 'public')
    await mkdir(join(root, 'sub/.git'), { recursive: true })
    await mkdir(join(root, 'empty'))
    await mkdir(join(folder, 'public-secret'))
    await Promise.all(
      Object.entries({
        'public/a.txt': 'hello static',
        'public/größe und mehr.txt': 'umlauts',
        'public/index.html': '<p>front',
        'public/sub/index.html': '<p>sub',
        'public/app.js': script,
        'public/app.js.br': brotliCompressSync(script),
        'public/app.js.gz': gzipSync(script),
        'public/.env': secret,
        'public/sub/.git/config': secret,
        'secret.txt': secret,
        'public-secret/a.txt': secret,
      }).map(([path, text]) => writeFile(join(folder, path), text)),
    )
    await symlink(join(folder, 'secret.txt'), join(root, 'link.txt'))
    await symlink(join(folder, 'public-secret'), join(root, 'linked'))
    await symlink(join(root, '.env'), join(root, 'env.txt'))
    await symlink(join(root, 'a.txt'), join(root, 'same.txt'))
    errors = []
    const logger: Logger = {
      debug() {},
      info() {},
      warn() {},
      error: (_facts, message) => errors.push(message),
    }
    const files = new StaticFiles({ '/static/': 'public' }, { root: folder, isProduction, logger })
    server = createServer((request, response) => {
      if (!files.serve(request, response)) response.writeHead(418).end('the app')
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    port = (server.address() as AddressInfo).port
  })

  afterEach(async () => {
    server.closeAllConnections()
    server.close()
    await rm(folder, { recursive: true })
  })

  async function ask(path: string, headers = '', method = 'GET'): Promise<RawAnswer> {
    const client = await RawClient.connect(port)
    client.write(`${method} ${path} HTTP/1.1\r\nHost: a\r\n${headers}\r\n`)
    const answer = await client.answer(method)
    client.close()
    return answer
  }

  it.each([
    ['/static/a.txt', 'hello static', 'text/plain; charset=utf-8'],
    ['/static/a.txt?v=1', 'hello static', 'text/plain; charset=utf-8'],
    ['/static/gr%C3%B6%C3%9Fe%20und%20mehr.txt', 'umlauts', 'text/plain; charset=utf-8'],
    ['/static/', '<p>front', 'text/html; charset=utf-8'],
    ['/static/sub/', '<p>sub', 'text/html; charset=utf-8'],
    ['/static/same.txt', 'hello static', 'text/plain; charset=utf-8'],
  ])('serves %s', async (path, text, type) => {
    const { status, headers, body } = await ask(path)

    expect(status).toBe(200)
    expect(body.toString()).toBe(text)
    expect(lastHeader(headers, 'content-type')).toBe(type)
  })

  it('leaves other paths to the app', async () => {
    expect((await ask('/statics/a.txt')).status).toBe(418)
    expect((await ask('/static')).status).toBe(418)
  })

  it('sends a folder on to its slash, and never to another host', async () => {
    const { status, headers } = await ask('/static/sub')

    expect(status).toBe(301)
    expect(lastHeader(headers, 'location')).toBe('/static/sub/')
  })

  it('answers what is unchanged with 304', async () => {
    const { headers } = await ask('/static/a.txt')

    const again = await ask(
      '/static/a.txt',
      `If-None-Match: ${lastHeader(headers, 'etag')}\r\nIf-Modified-Since: ${lastHeader(headers, 'last-modified')}\r\n`,
    )

    expect(again.status).toBe(304)
  })

  it.each([
    ['bytes=0-4', 206, 'hello', 'bytes 0-4/12'],
    ['bytes=6-', 206, 'static', 'bytes 6-11/12'],
    ['bytes=-3', 206, 'tic', 'bytes 9-11/12'],
    ['bytes=99-', 416, 'Range Not Satisfiable', 'bytes */12'],
    ['lines=1-2', 200, 'hello static', undefined],
  ])('answers the range %s with %i', async (range, expected, text, contentRange) => {
    const { status, headers, body } = await ask('/static/a.txt', `Range: ${range}\r\n`)

    expect(status).toBe(expected)
    expect(body.toString()).toBe(text)
    expect(lastHeader(headers, 'content-range')).toBe(contentRange)
  })

  it('answers HEAD without a body, and 405 to what would write', async () => {
    const { status, headers } = await ask('/static/a.txt', '', 'HEAD')
    expect(status).toBe(200)
    expect(lastHeader(headers, 'content-length')).toBe('12')

    for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS']) {
      const refused = await ask('/static/a.txt', '', method)
      expect(refused.status).toBe(405)
      expect(lastHeader(refused.headers, 'allow')).toBe('GET, HEAD')
    }
  })

  it.each([
    ['br, gzip', 'br'],
    ['gzip', 'gzip'],
    ['gzip, br;q=0', 'gzip'],
    ['identity', undefined],
  ])(
    'sends to a client that takes %s what was compressed beforehand',
    async (accepts, expected) => {
      const { status, headers, body } = await ask(
        '/static/app.js',
        `Accept-Encoding: ${accepts}\r\n`,
      )

      expect(status).toBe(200)
      expect(lastHeader(headers, 'content-encoding')).toBe(isProduction ? expected : undefined)
      expect(lastHeader(headers, 'content-type')).toMatch(/^text\/javascript/)
      if (!isProduction || expected === undefined) expect(body.toString()).toBe(script)
      else expect(body.length).toBeLessThan(script.length)
    },
  )

  const ups = ['../', '..%2f', '%2e%2e/', '%2e%2e%2f', '.%2e/', '..\\', '..%5c', '%2e%2e%5c']
  const ways = [
    ...ups.flatMap((up) => [
      `${up}secret.txt`,
      `sub/${up}${up}secret.txt`,
      `${up}public-secret/a.txt`,
      `x/${up}${up}${up}secret.txt`,
    ]),
    '..%252fsecret.txt',
    '%252e%252e/secret.txt',
    '..%c0%afsecret.txt',
    '..%00/secret.txt',
    'a.txt%00.html',
    '%00',
    '/secret.txt',
    '%2fetc%2fpasswd',
    '//etc/passwd',
    'file:///etc/passwd',
    '.env',
    '%2eenv',
    './.env',
    'sub/.git/config',
    'sub/%2egit/config',
    'sub/%2egit%2fconfig',
    'link.txt',
    'linked/a.txt',
    'env.txt',
    'empty/',
    '%',
    '%zz',
    '%ff',
    'a.txt/',
    'a.txt/x',
    'nothing',
    `${'a/'.repeat(500)}x`,
    'a'.repeat(300),
    'C:%5cwindows%5cwin.ini',
  ]
  it.each(ways)('leads nowhere by %s', async (way) => {
    const { status, body } = await ask(`/static/${way}`)

    expect(status).toBe(404)
    expect(body.toString()).toBe('Not Found')
    expect(errors).toEqual([])
  })

  it('lists no folder', async () => {
    const { status } = await ask('/static/empty')

    expect([301, 404]).toContain(status)
    expect((await ask('/static/empty/')).status).toBe(404)
  })

  it('survives a file that goes away, and a client that does', async () => {
    await writeFile(join(folder, 'public/large.bin'), Buffer.alloc(20_000_000))
    for (let n = 0; n < 20; n++) {
      const client = await RawClient.connect(port)
      client.write('GET /static/large.bin HTTP/1.1\r\nHost: a\r\n\r\n')
      await client.until('HTTP/1.1 200')
      client.close()
    }
    await unlink(join(folder, 'public/large.bin'))

    expect((await ask('/static/large.bin')).status).toBe(404)
    expect((await ask('/static/a.txt')).status).toBe(200)
  })
})

it.each([
  ['static/', 'begin and end it with /'],
  ['/static', 'begin and end it with /'],
])('StaticFiles refuses the prefix %s', (prefix, hint) => {
  const logger: Logger = { debug() {}, info() {}, warn() {}, error() {} }
  const options = { root: tmpdir(), isProduction: false, logger }

  expect(() => new StaticFiles({ [prefix]: '.' }, options)).toThrow(hint)
})
