import type { ForeignSessions } from 'channelkit/sessions'
import { FakeClock } from 'channelkit/testing'
import { MemoryStore } from 'express-session'
import { describe, expect, it } from 'vitest'
import { silentLogger } from '../../../src/logger.ts'
import type { SessionStore } from '../../../src/sessions/session-store.ts'
import { SiteSessions } from '../../../src/sessions/site-sessions.ts'

const secret = 'a secret'

function newSessions(store: SessionStore, clock: FakeClock) {
  const warnings: string[] = []
  const logger = {
    ...silentLogger,
    warn: (_facts: object, message: string) => warnings.push(message),
  }
  const sessions = new SiteSessions({
    session: { store, secret },
    isProduction: false,
    logger,
    clock,
  })
  return { sessions, warnings }
}

describe('SiteSessions', () => {
  it('says which key was changed twice, when another process had undone the change unseen', async () => {
    const base = new MemoryStore()
    const clock = new FakeClock(Date.now())
    let release: (() => void) | undefined
    const stalled: SessionStore = {
      get: (sid, callback) => base.get(sid, callback),
      set: (sid, session, callback) => {
        release = () => base.set(sid, session as never, callback)
      },
      destroy: (sid, callback) => base.destroy(sid, callback),
    }
    const [here, there] = [newSessions(base, clock), newSessions(stalled, clock)]
    const [mine, theirs] = await Promise.all(
      [here, there].map(({ sessions }) => sessions.loadOfChannel('inbox!client')),
    )
    if (!mine || !theirs) throw new Error('there are two')
    mine.count = 1
    theirs.count = 1
    const late = there.sessions.saveOfChannel(theirs)
    while (!release) await new Promise(setImmediate)
    await here.sessions.saveOfChannel(mine)
    release()
    await late
    expect([...here.warnings, ...there.warnings]).toEqual([])

    await clock.advance(500)
    while (here.warnings.length === 0) await new Promise(setImmediate)

    expect(here.warnings).toEqual([expect.stringContaining('changed count of one session at once')])
  })

  it.each([
    ['does not answer', () => new Promise<never>(() => {}), 'has not answered for 10000 ms'],
    [
      'fails',
      (key: string) => Promise.reject(new Error(`no session ${key}`)),
      'failed: no session \u2026',
    ],
  ])('says so when the auth library %s, without the key', async (_, load, text) => {
    const clock = new FakeClock()
    const foreign: ForeignSessions = { key: () => undefined, load }
    const sessions = new SiteSessions({
      session: { store: new MemoryStore(), secret },
      auth: { user: () => null, sessions: foreign },
      isProduction: false,
      logger: silentLogger,
      clock,
    })

    const asked = sessions.load('SecretKey').catch((error: unknown) => error)
    await clock.advance(10_000)

    expect(await asked).toMatchObject({
      code: 'ERR_SESSION_STORE',
      message: expect.stringContaining(`auth.sessions.load ${text}`),
    })
  })
})
