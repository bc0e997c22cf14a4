import { Site } from 'channelkit'
import session, { MemoryStore } from 'express-session'
import { describe, expect, it } from 'vitest'
import type { Config } from '../../../src/config.ts'

const load = (config: object) => Site.load({ ...config, channelBackends: memory } as Config)
const memory = { default: { backend: 'memory:' } }
const store = new MemoryStore()
const secret = 'a secret'
const strong = 'a3f9c1d27be84560a3f9c1d27be84560'
const plain = { get: () => {}, set: () => {}, destroy: () => {} }

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
    [{ store, secret, storeTimeoutMs: 0 }, 'session.storeTimeoutMs is 0'],
    [{ store }, 'session.secret is missing'],
    [{ store, secret, channelSecret: '' }, 'session.channelSecret is missing'],
  ])('refuses %j', async (given, message) => {
    await expect(load({ session: given })).rejects.toThrow(message)
  })

  it('refuses a short secret in production', async () => {
    const config = { session: { store, secret }, mode: 'production' }

    await expect(load(config)).rejects.toMatchObject({ code: 'ERR_INVALID_CONFIG' })
  })

  it.each([
    ['development', new MemoryStore(), 'info'],
    ['production', new MemoryStore(), 'warn'],
    ['production', { ...plain, update: async () => {} }, undefined],
  ] as const)('says at start in %s what is lost without update', async (mode, given, level) => {
    const logged: unknown[] = []
    const note = (name: string) => (_facts: object, message: string) => {
      if (message.includes('no update')) logged.push(name)
    }
    const logger = {
      debug: note('debug'),
      info: note('info'),
      warn: note('warn'),
      error: note('error'),
    }
    const config = { session: { store: given, secret: strong }, mode, channelBackends: memory }

    const site = await Site.load(config as Config, { logger })
    await site.close()

    expect(logged).toEqual(level === undefined ? [] : [level])
  })

  it('takes several channelSecrets while they are rotated', async () => {
    const config = { session: { store, secret, channelSecret: ['new', 'old'] } }

    const site = await load(config)

    expect(site.sessions().config.channelSecrets).toEqual(['new', 'old'])
    await site.close()
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
