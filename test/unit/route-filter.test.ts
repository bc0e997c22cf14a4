import { defineRouting, include, type Message, route } from 'channelkit'
import { TestSite } from 'channelkit/testing'
import { describe, expect, it } from 'vitest'

const tells =
  (mark: string) =>
  async (message: Message<'http.request'>): Promise<void> => {
    const params = 'params' in message ? message.params : {}
    await message.replyChannel.send({ content: JSON.stringify([mark, params]) })
  }

async function answers(site: TestSite, path: string, method = 'GET'): Promise<unknown> {
  const response = await site.request(path, { method })
  return response.status === 200 ? JSON.parse(await response.text()) : response.status
}

describe('route', () => {
  it.each<[path: string | RegExp, asked: string, params: unknown]>([
    ['/hello', '/hello', {}],
    ['/hello', '/hello/', undefined],
    ['/hello', '/hell', undefined],
    ['/a.b', '/aXb', undefined],
    ['/rooms/:room', '/rooms/caf%C3%A9', { room: 'café' }],
    ['/rooms/:room', '/rooms/', undefined],
    ['/rooms/:room', '/rooms/a/b', undefined],
    ['/rooms/:room/users/:user', '/rooms/a/users/b', { room: 'a', user: 'b' }],
    ['/files/*', '/files/a/b.txt', {}],
    ['/files/*', '/files', undefined],
    [/^\/year\/(?<year>\d{4})$/, '/year/2015', { year: '2015' }],
    [/^\/year\/(?<year>\d{4})$/, '/year/now', undefined],
    [/hello$/g, '/say/hello', {}],
  ])('with path %s takes %s with %j', async (path, asked, params) => {
    const routing = defineRouting({}, route('http.request', { path }, tells('routed')))
    await using site = await TestSite.open({ routing })

    expect(await answers(site, asked)).toEqual(params ? ['routed', params] : 404)
    expect(await answers(site, asked)).toEqual(params ? ['routed', params] : 404)
  })

  it('tries routes in their order, then the channel’s own consumer', async () => {
    const routing = defineRouting(
      { 'http.request': tells('rest') },
      route('http.request', { path: '/a', method: 'POST' }, tells('post')),
      route('http.request', { path: '/a' }, tells('first')),
      route('http.request', { path: '/:any' }, tells('second')),
    )
    await using site = await TestSite.open({ routing })

    expect(await answers(site, '/a', 'POST')).toEqual(['post', {}])
    expect(await answers(site, '/a')).toEqual(['first', {}])
    expect(await answers(site, '/b')).toEqual(['second', { any: 'b' }])
    expect(await answers(site, '/b/c')).toEqual(['rest', {}])
  })

  it('leaves the rest to the view layer', async () => {
    const routing = defineRouting({}, route('http.request', { path: '/a' }, tells('routed')))
    const app = { fetch: () => Response.json('view') }
    await using site = await TestSite.open({ routing, app })

    expect(await answers(site, '/a')).toEqual(['routed', {}])
    expect(await answers(site, '/b')).toBe('view')
  })

  it('routes events of sockets', async () => {
    const routing = defineRouting(
      {},
      route('websocket.receive', { path: '/rooms/:room' }, async ({ params, replyChannel }) => {
        await replyChannel.send({ content: params.room })
      }),
    )
    await using site = await TestSite.open({ routing })

    const socket = await site.connect('/rooms/kitchen')
    socket.send('hello')

    expect(await socket.next()).toBe('kitchen')
  })

  it('refuses a socket whose path has no route', async () => {
    const routing = defineRouting(
      {},
      route('websocket.connect', { path: '/chat' }, async ({ replyChannel }) => {
        await replyChannel.send({ accept: true })
      }),
    )
    await using site = await TestSite.open({ routing, websocket: { acceptance: 'consumer' } })

    expect((await site.connect('/chat')).accepted).toBe(true)
    expect((await site.connect('/elsewhere')).accepted).toBe(false)
  })

  it.each([
    [/^\/(\d+)$/, 'name its groups'],
    [/^\/(?<a>\d)(\d)$/, 'name its groups'],
    ['rooms', 'begin it with /'],
    ['/a*b', '* only at its end'],
    ['/:a/:a', 'a name of its own'],
    ['/:1', 'as /:name'],
    [7, 'give a string or an expression'],
  ])('refuses the path %s', (path, message) => {
    expect(() => route('http.request', { path: path as string }, tells(''))).toThrow(
      expect.objectContaining({
        code: 'ERR_INVALID_CONFIG',
        message: expect.stringContaining(message),
      }),
    )
  })

  it('takes groups that capture nothing', () => {
    expect(() => route('http.request', { path: /^\/(?:a|b)$/ }, tells(''))).not.toThrow()
  })
})

describe('include', () => {
  it('strips the prefix for what it takes in, and merges the parameters', async () => {
    const inner = defineRouting(
      { 'http.request': tells('rest') },
      route('http.request', { path: '/' }, tells('index')),
      route('http.request', { path: '/:post' }, tells('post')),
    )
    const routing = defineRouting({}, include(inner, { path: '/blogs/:blog' }))
    await using site = await TestSite.open({ routing })

    expect(await answers(site, '/blogs/x')).toEqual(['index', { blog: 'x' }])
    expect(await answers(site, '/blogs/x/y')).toEqual(['post', { blog: 'x', post: 'y' }])
    expect(await answers(site, '/blogs/x/y/z')).toEqual(['rest', { blog: 'x' }])
    expect(await answers(site, '/blog')).toBe(404)
  })

  it('takes a regular expression as prefix, from the start', async () => {
    const inner = defineRouting({ 'http.request': tells('in') })
    const routing = defineRouting({}, include(inner, { path: /\/v(?<version>\d)/ }))
    await using site = await TestSite.open({ routing })

    expect(await answers(site, '/v1/x')).toEqual(['in', { version: '1' }])
    expect(await answers(site, '/x/v1')).toBe(404)
  })
})
