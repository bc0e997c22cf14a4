import { describe, expect, it } from 'vitest'
import {
  applyChanges,
  changesOf,
  makeSession,
  noteSaved,
  readHidden,
  writeHidden,
} from '../../../src/sessions/session.ts'

describe('a session', () => {
  it('behaves like a plain object of its values', () => {
    const session = makeSession('sid', { cookie: {}, room: 'kitchen', visits: 2 })
    session.visits = 3
    session.friends = ['ann']

    expect({ ...session }).toEqual({ room: 'kitchen', visits: 3, friends: ['ann'] })
    expect(session.id).toBe('sid')
    expect(JSON.stringify(session)).not.toContain('sid')
  })

  it('knows changed, new, deleted and deep keys, and no other', () => {
    const session = makeSession('sid', { a: 1, b: 2, c: { d: [1] }, e: 5 })
    session.a = 10
    delete session.b
    ;(session.c as { d: number[] }).d.push(2)
    session.f = 6
    session.e = 5

    expect([...changesOf(session).values]).toEqual([
      ['a', '10'],
      ['c', '{"d":[1,2]}'],
      ['f', '6'],
      ['b', undefined],
    ])
  })

  it('has no changes once they were saved', () => {
    const session = makeSession('sid', undefined)
    session.a = 1
    noteSaved(session, changesOf(session), undefined)

    expect(changesOf(session).values.size).toBe(0)
  })

  it('merges key by key, and tells which keys someone else changed too', () => {
    const session = makeSession('sid', { mine: 1, both: 1, theirs: 1, gone: 1 })
    session.mine = 2
    session.both = 2
    delete session.gone
    const current = { mine: 1, both: 3, theirs: 3, gone: 1, added: 1 }

    const overwritten = applyChanges(current, changesOf(session))

    expect(current).toEqual({ mine: 2, both: 2, theirs: 3, added: 1 })
    expect(overwritten).toEqual(['both'])
  })

  it('hides what Channelkit keeps in it', () => {
    const session = makeSession('sid', { 'channelkit:http': 'key' })
    writeHidden(session, 'channelkit:user', { session: 'key' })

    expect(Object.keys(session)).toEqual([])
    expect(readHidden(session, 'channelkit:http')).toBe('key')
    expect([...changesOf(session).values.keys()]).toEqual(['channelkit:user'])
  })

  it('keeps a key named __proto__ as any other', () => {
    const session = makeSession('sid', JSON.parse('{"__proto__":{"admin":true}}'))

    expect(session.admin).toBeUndefined()
    expect(Object.keys(session)).toEqual(['__proto__'])
  })

  it('tells of a key that someone else has changed to the same value, as counts are', () => {
    const session = makeSession('sid', { count: 1, gone: 1 })
    session.count = 2
    delete session.gone
    const current = { count: 2 }

    expect(applyChanges(current, changesOf(session))).toEqual(['count'])
  })

  it('tells of none that Channelkit keeps', () => {
    const session = makeSession('sid', {})
    writeHidden(session, 'channelkit:http', 'one')

    expect(applyChanges({ 'channelkit:http': 'other' }, changesOf(session))).toEqual([])
  })

  const loop: { self?: unknown } = {}
  loop.self = loop

  it.each([
    ['big', 10n, '"big" in a session is a bigint'],
    ['big', { deep: [1n] }, '"big.deep.0" in a session is a bigint'],
    ['map', new Map([[1, 2]]), '"map" in a session is a Map'],
    ['call', () => 1, '"call" in a session is a function'],
    ['inner', { call: () => 1 }, '"inner.call" in a session is a function'],
    ['at', new Date(0), '"at" in a session is a Date'],
    ['ratio', Number.NaN, '"ratio" in a session is NaN'],
    ['bytes', new Uint8Array(2), '"bytes" in a session is a Uint8Array'],
    ['loop', loop, '"loop" in a session is a value that contains itself'],
    ['cookie', { maxAge: 1 }, 'the key "cookie" of a session'],
    ['channelkit:http', 'key of a victim', 'the key "channelkit:http" of a session'],
  ])('takes no %s that is %o', (key, value, message) => {
    const session = makeSession('sid', {})
    Object.assign(session, { [key]: value })

    expect(() => changesOf(session)).toThrow(
      expect.objectContaining({
        code: 'ERR_INVALID_CONTENT',
        message: expect.stringContaining(message),
      }),
    )
  })

  it('takes what JSON gives back, shared parts and undefined too', () => {
    const session = makeSession('sid', { gone: 1 })
    const part = { a: [1, 'b', null, true] }
    Object.assign(session, { one: part, list: [part, part], gone: undefined })

    expect([...changesOf(session).values.keys()]).toEqual(['gone', 'one', 'list'])
  })
})
