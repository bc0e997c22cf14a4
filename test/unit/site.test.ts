import { Channel, defineRouting, Site } from 'channelkit'
import { MemoryBackend } from 'channelkit/memory'
import { TestSite } from 'channelkit/testing'
import { describe, expect, it } from 'vitest'

function memory() {
  return { default: { backend: () => new MemoryBackend() } }
}

describe('Site', () => {
  describe('.load()', () => {
    it.each([
      [
        7,
        'channelBackends.default.backend is 7; give a backend, a function that makes one, or a URL',
      ],
      [() => ({}), 'channelBackends.default.backend is [object Object]; give a backend'],
      [
        '',
        'channel backend URL "" is of no known kind; use memory:, sqlite:FILE, postgres://USER@HOST/DATABASE, mysql://USER@HOST/DATABASE or redis://HOST:PORT',
      ],
      ['sqlite::memory:', 'channel backend URL "sqlite::memory:" names no file; use memory:'],
      ['sqlite:', 'channel backend URL "sqlite:" names no file; use memory:'],
      ['amqp://user:secret@host/', 'channel backend URL "amqp://user:…@host/" is of no known'],
    ])('refuses the backend %o', async (backend, message) => {
      const loading = Site.load({ channelBackends: { default: { backend: backend as never } } })

      await expect(loading).rejects.toMatchObject({
        code: 'ERR_INVALID_CONFIG',
        message: expect.stringContaining(message),
      })
    })

    it('passes on what the making of a backend throws', async () => {
      const refused = new RangeError('no such machine')
      const backend = () => {
        throw refused
      }

      await expect(Site.load({ channelBackends: { default: { backend } } })).rejects.toBe(refused)
    })

    it.each([
      ['production', undefined, true],
      ['development', undefined, false],
      [undefined, 'production', true],
      ['development', 'production', false],
      [undefined, undefined, false],
    ] as const)(
      'knows by mode %s and NODE_ENV %s whether it is in production',
      async (mode, environment, isProduction) => {
        const before = process.env.NODE_ENV
        if (environment === undefined) delete process.env.NODE_ENV
        else process.env.NODE_ENV = environment
        try {
          const site = await Site.load({ channelBackends: memory(), ...(mode && { mode }) })

          expect(site.isProduction).toBe(isProduction)
        } finally {
          process.env.NODE_ENV = before
        }
      },
    )
  })

  describe('.routing()', () => {
    it('gives http.request to the app where the routing has no consumer for it', async () => {
      const app = { fetch: () => new Response('from the app') }
      const own = defineRouting({ 'http.request': (message) => message.replyChannel.send({}) })
      const withApp = await Site.load({ channelBackends: memory(), app })
      const withBoth = await Site.load({
        channelBackends: { default: { ...memory().default, routing: own } },
        app,
      })

      expect([...(await withApp.routing()).keys()]).toEqual(['http.request'])
      expect((await withBoth.routing()).get('http.request')).toBe(own.routes.get('http.request'))
    })

    it('gives the other backends their own routing, without the app', async () => {
      const site = await Site.load({
        channelBackends: { ...memory(), slow: memory().default },
        app: { fetch: () => new Response() },
      })

      expect([...(await site.routing('slow')).keys()]).toEqual([])
      expect(site.backendNames).toEqual(['default', 'slow'])
    })

    it.each([
      ['./greeting/consumers.ts#app', 'is "./greeting/consumers.ts#app"; make it by defineRouting'],
      [{ jobs: () => {} }, 'is [object Object]; make it by defineRouting'],
    ])('refuses the routing %o', async (routing, message) => {
      const site = await Site.load(
        { channelBackends: { default: { ...memory().default, routing: routing as never } } },
        { root: 'test/support/sites' },
      )

      await expect(site.routing()).rejects.toMatchObject({
        code: 'ERR_INVALID_CONFIG',
        message: expect.stringContaining(`the routing of channel backend default ${message}`),
      })
    })

    it.each([[7], [{}], ['./greeting/consumers.ts#notAFunction']])(
      'refuses the app %o',
      async (app) => {
        const site = await Site.load(
          { channelBackends: memory(), app: app as never },
          { root: 'test/support/sites' },
        )

        await expect(site.routing()).rejects.toMatchObject({ code: 'ERR_INVALID_CONFIG' })
      },
    )
  })

  it('serves several backends in one process', async () => {
    const seen: string[] = []
    const noting = (name: string) => defineRouting({ jobs: () => void seen.push(name) })
    await using site = await TestSite.open({
      channelBackends: {
        default: { routing: noting('default') },
        slow: { routing: noting('slow') },
      },
    })

    await Channel('jobs').send({})
    await Channel('jobs', { backend: 'slow' }).send({})
    await site.drain()

    expect(seen.sort()).toEqual(['default', 'slow'])
  })
})
