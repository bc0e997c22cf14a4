import { createHmac } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import {
  checkSecrets,
  isKeyedHash,
  keyedHash,
  signCookie,
  verifyCookie,
} from '../../../src/sessions/signing.ts'

const strong = 'a3f9c1d27be84560a3f9c1d27be84560'

describe('verifyCookie', () => {
  it('reads what cookie-signature has signed', () => {
    // Made by cookie-signature 1.2.2: sign('hello', 'tobiiscool').
    const cookie = 's:hello.DGDUkGlIkCzPz+C0B064FNgHdEjox7ch8tOBGslZ5QI'

    expect(verifyCookie(cookie, ['tobiiscool'])).toBe('hello')
    expect(signCookie('hello', ['tobiiscool'])).toBe(cookie)
  })

  it('verifies by every secret, and signs by the first', () => {
    const old = signCookie('sid', ['old'])

    expect(verifyCookie(old, ['new', 'old'])).toBe('sid')
    expect(verifyCookie(old, ['new'])).toBeUndefined()
    expect(signCookie('sid', ['new', 'old'])).toBe(signCookie('sid', ['new']))
  })

  it('takes no signature with any one bit flipped', () => {
    const cookie = signCookie('sid.with.dots', ['secret'])
    const accepted: string[] = []

    for (let index = 0; index < cookie.length; index++) {
      for (let bit = 1; bit < 128; bit *= 2) {
        const flipped = String.fromCharCode(cookie.charCodeAt(index) ^ bit)
        const forged = cookie.slice(0, index) + flipped + cookie.slice(index + 1)
        if (verifyCookie(forged, ['secret']) !== undefined) accepted.push(forged)
      }
    }

    expect(accepted).toEqual([])
    expect(verifyCookie(cookie, ['secret'])).toBe('sid.with.dots')
  })

  it.each(['', 's:', 's:sid', 's:sid.', 'sid', '.', 's:.', 'j:{"a":1}'])(
    'takes no %j',
    (cookie) => {
      expect(verifyCookie(cookie, ['secret'])).toBeUndefined()
    },
  )

  it('takes no truncated signature', () => {
    const cookie = signCookie('sid', ['secret'])

    for (let end = 0; end < cookie.length; end++) {
      expect(verifyCookie(cookie.slice(0, end), ['secret'])).toBeUndefined()
    }
  })
})

describe('keyedHash', () => {
  it('differs by purpose, so that one cannot stand for another', () => {
    const hash = keyedHash('ticket', 'value', strong)

    expect(hash).toMatch(/^[\w-]{43}$/)
    expect(isKeyedHash('ticket', 'value', hash, ['other', strong])).toBe(true)
    expect(isKeyedHash('passed session', 'value', hash, [strong])).toBe(false)
    expect(isKeyedHash('ticket', 'value', hash, ['other'])).toBe(false)
    const cookieDigest = createHmac('sha256', strong).update('value').digest('base64url')
    expect(isKeyedHash('ticket', 'value', cookieDigest, [strong])).toBe(false)
  })
})

describe('checkSecrets', () => {
  it.each([undefined, '', [], [''], [strong, 7], 42])('refuses %j', (secret) => {
    expect(() => checkSecrets('session.secret', secret, false)).toThrow('session.secret')
  })

  it.each(['keyboard cat', 'short', 'x'.repeat(40), 'your-secret-which-is-long-enough-for-this'])(
    'refuses %j in production',
    (secret) => {
      expect(() => checkSecrets('session.secret', [strong, secret], true)).toThrow(
        'session.secret number 2',
      )
      expect(checkSecrets('session.secret', secret, false)).toEqual([secret])
    },
  )

  it('never shows a secret in an error', () => {
    expect(() => checkSecrets('session.secret', 'hunter2', true)).toThrow(
      expect.objectContaining({ message: expect.not.stringContaining('hunter2') }),
    )
  })
})
