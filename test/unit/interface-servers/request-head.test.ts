import { describe, expect, it } from 'vitest'
import { peerReader } from '../../../src/interface-servers/peer.ts'
import { requestHead } from '../../../src/interface-servers/request-head.ts'
import { incomingRequest } from '../../support/incoming-request.ts'

const readPeer = peerReader([])
const headOf = (...options: Parameters<typeof incomingRequest>) =>
  requestHead(incomingRequest(...options), readPeer(incomingRequest(...options)))

describe('requestHead', () => {
  it('has the addresses of both ends', () => {
    expect(headOf({})).toMatchObject({
      client: ['203.0.113.9', 4_711],
      server: ['192.0.2.80', 80],
    })
  })

  it('keeps headers in order, with duplicates, their names in lower case', () => {
    const rawHeaders = [
      ['Host', 'example.com'],
      ['X-Mark', 'one'],
      ['Accept', 'text/html'],
      ['x-mark', 'two'],
    ] as const

    expect(headOf({ rawHeaders }).headers).toEqual([
      ['host', 'example.com'],
      ['x-mark', 'one'],
      ['accept', 'text/html'],
      ['x-mark', 'two'],
    ])
  })

  it.each([
    ['/', '/', '/', '', {}],
    ['/a?x=1', '/a', '/a', 'x=1', { x: ['1'] }],
    ['/a?x=1&y=2&x=3', '/a', '/a', 'x=1&y=2&x=3', { x: ['1', '3'], y: ['2'] }],
    ['/a?', '/a', '/a', '', {}],
    ['/a?b?c', '/a', '/a', 'b?c', { 'b?c': [''] }],
    ['/a?q=a+b%2Bc', '/a', '/a', 'q=a+b%2Bc', { q: ['a b+c'] }],
    ['/caf%C3%A9', '/café', '/caf%C3%A9', '', {}],
    ['/a%2Fb', '/a/b', '/a%2Fb', '', {}],
    ['/a?q=%ff', '/a', '/a', 'q=%ff', { q: ['\ufffd'] }],
    ['*', '*', '*', '', {}],
    ['http://example.com/a?x=1', '/a', '/a', 'x=1', { x: ['1'] }],
    ['http://example.com?x=1', '/', '/', 'x=1', { x: ['1'] }],
    ['http://example.com', '/', '/', '', {}],
    ['//evil.example/a', '//evil.example/a', '//evil.example/a', '', {}],
  ])('splits and decodes %s', (url, path, raw_path, query_string, get) => {
    const head = headOf({ url })

    expect(head).toMatchObject({ path, raw_path, query_string })
    expect({ ...head.get }).toEqual(get)
  })

  it('takes __proto__ for a name like any other', () => {
    const { get } = headOf({ url: '/?__proto__=x&constructor=y' })

    expect(Object.keys(get)).toEqual(['__proto__', 'constructor'])
    expect(Object.getPrototypeOf(get)).toBe(null)
  })

  it.each([
    ['a=1; b=2', { a: '1', b: '2' }],
    ['a=1; a=2', { a: '1' }],
    ['a="quoted"', { a: 'quoted' }],
    ['a=b=c', { a: 'b=c' }],
    ['a=%C3%A9; b=%zz', { a: 'é', b: '%zz' }],
    [' a = 1 ;; b ; =x', { a: '1' }],
    ['__proto__=x', Object.fromEntries([['__proto__', 'x']])],
    ['', {}],
  ])('reads the cookies %j', (cookie, cookies) => {
    const read = headOf({ rawHeaders: [['Cookie', cookie]] }).cookies

    expect(Object.entries(read)).toEqual(Object.entries(cookies))
  })

  it.each([
    ['/%ff', 'the path "/%ff" is not percent-encoded UTF-8'],
    ['/%', 'the path "/%" is not percent-encoded UTF-8'],
    ['/%C3', 'the path "/%C3" is not percent-encoded UTF-8'],
    ['', 'the request target is ""; send a path'],
    ['example.com:443', 'the request target is "example.com:443"; send a path'],
    ['ftp://example.com/', 'the request target is "ftp://example.com/"; send a path'],
  ])('refuses the target %j', (url, message) => {
    expect(() => headOf({ url })).toThrow(
      expect.objectContaining({ code: 'ERR_BAD_REQUEST', message }),
    )
  })

  it.each([
    '/y/../admin',
    '/..',
    '/y/./admin',
    '/.',
    '/y/%2e%2e/admin',
    '/y/.%2E/admin',
    '/%2e/admin',
    '/y\\admin',
    '/y\\..\\admin?x=1',
    '/admin#/y',
    '/admin?x#y',
    'http://example.com/y/../admin',
    'http://example.com\\@elsewhere/admin',
  ])('refuses the target %j, which a URL parser would read as another', (url) => {
    expect(() => headOf({ url })).toThrow(
      expect.objectContaining({
        code: 'ERR_BAD_REQUEST',
        message: `the request target is ${JSON.stringify(url)}; send a path without dot segments, \\ and #`,
      }),
    )
  })

  it.each([
    '/.well-known/x',
    '/a..b',
    '/...',
    '/a/..b',
    '/%2e%2ea',
    '/a.',
    '/a?x=/../y',
    '/a?x=\\',
  ])('takes the target %j', (url) => {
    expect(headOf({ url }).raw_path).toBe(url.split('?')[0])
  })

  it.each([
    ['::ffff:192.0.2.80', '192.0.2.80'],
    ['2001:db8::80', '2001:db8::80'],
  ])('writes its own address %s as %s', (localAddress, host) => {
    expect(headOf({ localAddress }).server).toEqual([host, 80])
  })

  it('refuses two Host headers', () => {
    const rawHeaders = [
      ['Host', 'example.com'],
      ['host', 'evil.example'],
    ] as const

    expect(() => headOf({ rawHeaders })).toThrow('the request has two Host headers; send one')
  })
})
