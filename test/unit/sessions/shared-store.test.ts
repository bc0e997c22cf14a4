import { FakeClock } from 'channelkit/testing'
import { MemoryStore } from 'express-session'
import { describe, expect, it } from 'vitest'
import { isChannelkitError } from '../../../src/errors.ts'
import { type Clock, systemClock } from '../../../src/internal/clock.ts'
import {
  readSession,
  type SessionStore,
  type StoredSession,
  writeSession,
} from '../../../src/sessions/session-store.ts'
import { SharedStore } from '../../../src/sessions/shared-store.ts'
import { StoreAnswers } from '../../../src/sessions/store-answers.ts'

/** A process of its own on a store that others use as well, each call some way off. */
function newProcess(base: MemoryStore) {
  const later = async (call: () => void): Promise<void> => {
    await turns(4)
    call()
  }
  const store: SessionStore = {
    get: (sid, callback) => later(() => base.get(sid, callback)),
    set: (sid, session, callback) => later(() => base.set(sid, session as never, callback)),
    destroy: (sid, callback) => later(() => base.destroy(sid, callback)),
  }
  return { store, shared: open(store) }
}

function open(
  store: SessionStore,
  { timeoutMs = 5_000, clock = systemClock }: { timeoutMs?: number; clock?: Clock } = {},
) {
  const lost: string[] = []
  return Object.assign(
    new SharedStore({
      store,
      answers: new StoreAnswers({ timeoutMs, clock }),
      clock,
      onEnded: () => {},
      onOverwritten: () => lost.push('lost'),
    }),
    { lost },
  )
}

async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn++) await new Promise(setImmediate)
}

const cookie = { originalMaxAge: null }

describe('SharedStore without update', () => {
  it('keeps what two processes save of one session at once', async () => {
    const base = new MemoryStore()
    const [one, other] = [newProcess(base).shared, newProcess(base).shared]
    const lost: object[] = []

    for (let round = 0; round < 50; round++) {
      const sid = `sid${round}`
      await writeSession(base, sid, { cookie })
      await Promise.all([
        one.change(sid, (found) => found && { ...found, left: round }),
        other.change(sid, (found) => found && { ...found, right: round }),
      ])
      const kept = await readSession(base, sid)
      if (kept?.left !== round || kept.right !== round) lost.push({ round, kept })
    }

    expect(lost).toEqual([])
    expect([one.lost, other.lost]).toEqual([[], []])
  })

  it.each(['the same process', 'another process'])('lets a session end in %s', async (where) => {
    const base = new MemoryStore()
    const here = newProcess(base)
    const site = where === 'the same process' ? here.store : newProcess(base).store
    const undone: number[] = []

    for (let wait = 0; wait < 40; wait++) {
      const sid = `sid${wait}`
      await writeSession(base, sid, { cookie, userId: 1 })
      const saving = here.shared.change(sid, (found) => found && { ...found, seen: wait })
      await turns(wait)
      await new Promise((resolve) => site.destroy(sid, resolve))
      await saving
      if (await readSession(base, sid)) undone.push(wait)
    }

    expect(undone).toEqual([])
  })

  it('changes a session one after the other within a process', async () => {
    const base = new MemoryStore()
    const { store, shared } = newProcess(base)
    const second = open(store)
    await writeSession(base, 'sid', { cookie, count: 0 })
    const count = (found: StoredSession | undefined) => ({
      ...found,
      count: Number(found?.count) + 1,
    })

    await Promise.all([shared, second, shared, second].map((each) => each.change('sid', count)))

    expect(await readSession(base, 'sid')).toMatchObject({ count: 4 })
  })

  it('makes a change again that a process undoes which had read the session before it', async () => {
    const base = new MemoryStore()
    const clock = new FakeClock()
    let release = (): void => {}
    const stalled: SessionStore = {
      get: (sid, callback) => base.get(sid, callback),
      set: (sid, session, callback) => {
        release = () => base.set(sid, session as never, callback)
      },
      destroy: (sid, callback) => base.destroy(sid, callback),
    }
    const here = open(newProcess(base).store, { clock })
    const there = open(stalled, { clock })
    await writeSession(base, 'sid', { cookie })
    const late = there.change('sid', (found) => found && { ...found, theirs: true })
    await turns(10)
    await here.change('sid', (found) => found && { ...found, mine: true })

    release()
    await late
    expect(await readSession(base, 'sid')).toMatchObject({ theirs: true })
    expect(await readSession(base, 'sid')).not.toHaveProperty('mine')
    await clock.advance(500)
    await turns(50)

    expect(await readSession(base, 'sid')).toMatchObject({ theirs: true, mine: true })
  })

  it('says so when other processes write over a session without end', async () => {
    const base = new MemoryStore()
    const stubborn: SessionStore = {
      get: (sid, callback) => base.get(sid, callback),
      set: (sid, _, callback) => base.set(sid, { cookie, theirs: true } as never, callback),
      destroy: (sid, callback) => base.destroy(sid, callback),
    }
    const shared = open(stubborn)

    await shared.change('sid', () => ({ cookie, mine: true }))

    expect(shared.lost).toEqual(['lost'])
  })
})

describe.each(['with', 'without'])('SharedStore %s update', (kind) => {
  const newStore = (): SessionStore & { readonly base: MemoryStore } => {
    const base = new MemoryStore()
    const plain: SessionStore & { base: MemoryStore } = {
      base,
      get: (sid, callback) => base.get(sid, callback),
      set: (sid, session, callback) => base.set(sid, session as never, callback),
      destroy: (sid, callback) => base.destroy(sid, callback),
    }
    if (kind === 'without') return plain
    return {
      ...plain,
      async update(sid, change) {
        const changed = change(await readSession(base, sid))
        if (changed) await writeSession(base, sid, changed)
      },
    }
  }

  it('makes no session under a key that has ended', async () => {
    const store = newStore()
    const shared = open(store)

    await shared.end('sid', 60_000)
    await shared.change('sid', () => ({ cookie, late: true }))
    await shared.change('other', () => ({ cookie, early: true }))

    expect(await shared.read('sid')).toBeUndefined()
    expect(await shared.read('other')).toMatchObject({ early: true })
  })

  it('passes on what a change throws', async () => {
    const shared = open(newStore())

    const refused = shared.change('sid', () => {
      throw new RangeError('not now')
    })

    await expect(refused).rejects.toThrow('not now')
  })
})

describe('SharedStore', () => {
  it('waits for a store no longer than it is told, and goes on when it answers again', async () => {
    const base = new MemoryStore()
    let isAway = true
    class DeafStore extends MemoryStore {
      override get(...[sid, callback]: Parameters<MemoryStore['get']>): void {
        if (!isAway) base.get(sid, callback)
      }
    }
    const shared = open(new DeafStore(), { timeoutMs: 20 })

    await expect(shared.read('sid')).rejects.toMatchObject({
      code: 'ERR_SESSION_STORE',
      message: expect.stringContaining('DeafStore.get has not answered for 20 ms'),
    })
    await expect(shared.change('sid', () => ({ cookie }))).rejects.toThrow('20 ms')
    isAway = false
    expect(await shared.read('sid')).toBeUndefined()
  })

  const secretKey = 'a/secret key+of=somebody'

  it.each([
    [
      'a path',
      Object.assign(new Error(`ELOOP: open '/sessions/${secretKey}.json'`), {
        path: `/sessions/${secretKey}.json`,
      }),
      'ELOOP: open',
    ],
    [
      'a command',
      Object.assign(new Error('READONLY You cannot write'), {
        command: { name: 'get', args: [`sess:${secretKey}`] },
      }),
      'READONLY',
    ],
    [
      'a URL',
      new Error(`503 of https://store/${encodeURIComponent(secretKey)}`),
      '503 of https://store/\u2026',
    ],
    [
      'data',
      new SyntaxError(`Unexpected token in "{ ${secretKey}"... is not valid JSON`),
      'no JSON',
    ],
    ['no error', secretKey, 'failed'],
  ])('tells of an error, and nothing of the session, with %s in it', async (_, fault, text) => {
    const shared = open({
      get: (_sid, callback) => callback(fault),
      set: () => {},
      destroy: () => {},
    })

    const error = await shared.read(secretKey).catch((caught: unknown) => caught)

    expect(error).toMatchObject({ code: 'ERR_SESSION_STORE' })
    const { message, stack, cause } = error as Error
    const all = [message, stack, JSON.stringify(error), String((cause as Error)?.stack)].join(' ')
    expect(message).toContain(text)
    expect(all).not.toContain('secret')
    expect(JSON.stringify(cause ?? null)).not.toContain('secret')
  })

  it('names a store that has no class of its own', async () => {
    const shared = open({
      get: (_sid, callback) => callback(new RangeError('driver')),
      set: () => {},
      destroy: () => {},
    })

    const error = await shared.read('sid').catch((caught: unknown) => caught)

    expect(isChannelkitError(error, 'ERR_SESSION_STORE')).toBe(true)
    expect((error as Error).message).toBe(
      'get of the session store failed: driver; see to the store',
    )
  })

  it('leaves destroy answering as the store does', async () => {
    const base = new MemoryStore()
    const answering: SessionStore = {
      get: (sid, callback) => base.get(sid, callback),
      set: (sid, session, callback) => base.set(sid, session as never, callback),
      destroy(sid, callback) {
        if (callback) return callback(sid === 'bad' ? new Error('refused') : undefined)
        return sid === 'bad' ? Promise.reject(new Error('refused')) : Promise.resolve('gone')
      },
    }
    const shared = open(answering)

    const byCallback = await new Promise((resolve) => answering.destroy('bad', resolve))

    expect(byCallback).toMatchObject({ message: 'refused' })
    await expect(answering.destroy('bad')).rejects.toThrow('refused')
    expect(await answering.destroy('good')).toBe('gone')
    shared.close()
  })
})
