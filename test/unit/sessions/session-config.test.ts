import { Site } from 'channelkit'
import session, { MemoryStore } from 'express-session'
import { describe, expect, it } from 'vitest'
import type { Config } from '../../../src/config.ts'

const load = (config: object) => Site.load({ ...config, channelBackends: memory } as Config)
const memory = { default: { backend: 'memory:' } }
const store = new MemoryStore()
const secret = 'a secret'

describe('session in a config', () => {
  it.each([
    ['cookie-session, a middleware', { store: () => {}, secret }],
    ['express-session instead of its store', { store: session({ secret }), secret }],
    ['options of iron-session', { store: { password: 'x', cookieName: 'y' }, secret }],
    ['no store', { secret }],
  ])('refuses %s at load, and says the way out', async (_, given) => {
    await expect(load({ session: given })).rejects.toThrow(
      /session\.store is .*SqliteSessionStore/s,
    )
  })

  it.each([
    [{ store, secret, cookie: 'a' }, 'unknown key "cookie"'],
    [{ store, secret, cookieName: '' }, 'session.cookieName is ""'],
    [{ store, secret, channelExpiryMs: -1 }, 'session.channelExpiryMs is -1'],
    [{ store }, 'session.secret is missing'],
    [{ store, secret, channelSecret: '' }, 'session.channelSecret is missing'],
  ])('refuses %j', async (given, message) => {
    await expect(load({ session: given })).rejects.toThrow(message)
  })

  it('refuses a short secret in production', async () => {
    const config = { session: { store, secret }, mode: 'production' }

    await expect(load(config)).rejects.toMatchObject({ code: 'ERR_INVALID_CONFIG' })
  })

  it('is needed beside auth', async () => {
    await expect(load({ auth: () => null })).rejects.toThrow('auth and no session')
  })

  it('refuses an auth that tells no user', async () => {
    const config = { session: { store, secret }, auth: { hash: () => '' } }

    await expect(load(config)).rejects.toThrow('auth is')
  })

  it('is named by who asks for sessions without it', async () => {
    const site = await load({})

    expect(() => site.sessions()).toThrow('session: { store, secret }')
    await site.close()
  })
})
