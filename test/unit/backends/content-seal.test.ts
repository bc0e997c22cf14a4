import { randomBytes } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { ContentSeal } from '../../../src/backends/content-seal.ts'

const [oldKey, newKey] = [randomBytes(32), randomBytes(32)]

describe('ContentSeal', () => {
  it.each([
    ['text', '1{"a":"zażółć 🎈"}'],
    ['bytes', Buffer.from([0x32, 0, 255, 10, 13])],
    ['much', `1${'x'.repeat(1_048_576)}`],
  ])('opens what it closed: %s', (_name, encoded) => {
    const seal = new ContentSeal({ keys: [newKey] })

    const opened = seal.open(seal.close(encoded, 'c:a'), 'c:a')

    expect(opened?.equals(Buffer.from(encoded as string))).toBe(true)
  })

  it('takes a key as bytes, base64, URL-safe base64 and hexadecimal', () => {
    const texts = ['base64', 'base64url', 'hex'] as const
    const sealed = new ContentSeal({ keys: [newKey] }).close('1{}', 'c:a')

    const opened = texts.map((encoding) =>
      new ContentSeal({ keys: [newKey.toString(encoding)] }).open(sealed, 'c:a')?.toString(),
    )

    expect(opened).toEqual(['1{}', '1{}', '1{}'])
  })

  it('encrypts with the first key and decrypts with all', () => {
    const before = new ContentSeal({ keys: [oldKey] })
    const during = new ContentSeal({ keys: [newKey, oldKey] })
    const after = new ContentSeal({ keys: [newKey] })

    const [first, second] = [before.close('1{}', 'c:a'), during.close('1{}', 'c:a')]

    expect(during.open(first, 'c:a')?.toString()).toBe('1{}')
    expect(after.open(second, 'c:a')?.toString()).toBe('1{}')
    expect(before.open(second, 'c:a')).toBeUndefined()
    expect(after.open(first, 'c:a')).toBeUndefined()
  })

  it('refuses what was closed for another place', () => {
    const seal = new ContentSeal({ keys: [newKey] })
    const sealed = seal.close('1{}', 'c:a')

    expect(seal.open(sealed, 'c:b')).toBeUndefined()
    expect(seal.open(sealed, 'g:a')).toBeUndefined()
  })

  it('refuses what has one bit changed, wherever, or a byte cut off', () => {
    const seal = new ContentSeal({ keys: [newKey] })
    const sealed = seal.close('1{"a":1}', 'c:a')

    for (let bit = 0; bit < sealed.length * 8; bit++) {
      const changed = Buffer.from(sealed)
      changed[bit >> 3] = Number(changed[bit >> 3]) ^ (1 << (bit & 7))
      expect(seal.open(changed, 'c:a')).toBeUndefined()
    }
    for (let length = 0; length < sealed.length; length++) {
      expect(seal.open(sealed.subarray(0, length), 'c:a')).toBeUndefined()
    }
    expect(seal.open(sealed, 'c:a')?.toString()).toBe('1{"a":1}')
  })

  it('refuses what is not encrypted', () => {
    const seal = new ContentSeal({ keys: [newKey] })

    expect(seal.open(Buffer.from('1{}'), 'c:a')).toBeUndefined()
  })

  it('makes each time other bytes, 49 more than there were', () => {
    const seal = new ContentSeal({ keys: [newKey] })

    const sealed = Array.from({ length: 2_000 }, () => seal.close('1{}', 'c:a'))

    expect(new Set(sealed.map((each) => each.toString('latin1'))).size).toBe(2_000)
    expect(new Set(sealed.map((each) => each.toString('latin1', 21, 33))).size).toBe(2_000)
    expect(new Set(sealed.map(({ length }) => length))).toEqual(new Set([52]))
  })

  const good = newKey.toString('base64')
  it.each([
    ['a bare string', good, 'encryption is no list of keys; give { keys: [KEY] }'],
    ['a bare list', [good], 'encryption is no list of keys'],
    ['a string for the list', { keys: good }, 'encryption is no list of keys'],
    ['no key', { keys: [] }, 'encryption is no list of keys'],
    ['another option', { keys: [good], salt: 'x' }, 'encryption has an unknown option "salt"'],
    ['a key that is missing', { keys: [good, undefined] }, 'encryption.keys number 2 is not 32'],
    ['a pass phrase', { keys: ['hunter2-hunter2'] }, 'make one by openssl rand -base64 32'],
    ['a short key', { keys: [randomBytes(31).toString('hex')] }, 'number 1 is not 32 random bytes'],
    ['a long key', { keys: [randomBytes(33)] }, 'number 1 is not 32 random bytes'],
    ['a key of zeros', { keys: ['0'.repeat(64)] }, 'number 1 is not 32 random bytes'],
    ['a key twice', { keys: [good, newKey.toString('hex')] }, 'encryption.keys has a key twice'],
  ])('refuses %s, and shows no key', (_name, options, message) => {
    const make = () => new ContentSeal(options as { keys: string[] })

    expect(make).toThrow(expect.objectContaining({ code: 'ERR_INVALID_CONFIG' }))
    expect(make).toThrow(message)
    expect(make).not.toThrow(good)
    expect(make).not.toThrow('hunter2')
  })
})
