import { runInNewContext } from 'node:vm'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type Content, copyContent, measureContent } from '../../src/content.ts'
import { anyContent, cyclicContent } from '../support/arbitrary-content.ts'

class Room {}

const nested = (depth: number): Content => {
  let content: Content = {}
  for (let level = 0; level < depth; level++) content = { inner: content }
  return content
}

const invalid: readonly (readonly [content: unknown, message: string])[] = [
  [{ when: new Date(0) }, 'content.when is a Date; turn it into plain values before sending'],
  [{ list: [1, { ratio: Number.NaN }] }, 'content.list[1].ratio is NaN; send finite numbers'],
  [{ most: Number.NEGATIVE_INFINITY }, 'content.most is -Infinity; send finite numbers'],
  [{ run: () => {} }, 'content.run is a function; send strings, numbers, booleans, null or bytes'],
  [{ big: 1n }, 'content.big is a bigint; send strings, numbers, booleans, null or bytes'],
  [
    { list: [undefined] },
    'content.list[0] is undefined; send strings, numbers, booleans, null or bytes',
  ],
  [{ room: new Room() }, 'content.room is a Room; turn it into plain values before sending'],
  [{ map: new Map() }, 'content.map is a Map; turn it into plain values before sending'],
  [
    { odd: Object.create({ constructor: undefined }) },
    'content.odd is an object of no known class; turn it into plain values before sending',
  ],
  [[1], 'content is an array; send a plain object'],
  ['text', 'content is a string; send a plain object'],
  [null, 'content is null; send a plain object'],
  [undefined, 'content is undefined; send a plain object'],
  [new Uint8Array(1), 'content is a Uint8Array; send a plain object'],
]

describe('measureContent', () => {
  it('bounds the encoded size from above', () => {
    fc.assert(
      fc.property(anyContent, (content) => {
        const json = JSON.stringify(content, (_key, value) =>
          value instanceof Uint8Array ? value.byteLength : value,
        )
        expect(measureContent(content).maxBytes).toBeGreaterThanOrEqual(Buffer.byteLength(json))
      }),
    )
  })

  it('notices bytes at any depth', () => {
    expect(measureContent({ text: 'x' }).hasBytes).toBe(false)
    expect(measureContent({ list: [{ bytes: new Uint8Array() }] }).hasBytes).toBe(true)
  })

  it.each(invalid.map(([content, message]) => ({ content, message })))(
    'rejects, saying where and what to do: $message',
    ({ content, message }) => {
      expect(() => measureContent(content)).toThrow(
        expect.objectContaining({ code: 'ERR_INVALID_CONTENT', message }),
      )
    },
  )

  it('rejects cycles and what is nested deeper than 64 levels', () => {
    expect(measureContent(nested(64)).hasBytes).toBe(false)
    expect(() => measureContent(nested(65))).toThrow(
      /nested deeper than 64 levels, at content\.inner/,
    )
    expect(() => measureContent(cyclicContent)).toThrow(/content\.self.*break the cycle/)
  })

  it('accepts objects without a prototype and objects of another realm', () => {
    const bare: Content = Object.assign(Object.create(null), { text: 'x' })
    const foreign: Content = runInNewContext('({ list: [{ text: "x" }] })')

    expect(measureContent(bare).hasBytes).toBe(false)
    expect(copyContent(foreign)).toEqual({ list: [{ text: 'x' }] })
    expect(measureContent(foreign).hasBytes).toBe(false)
  })
})

describe('copyContent', () => {
  it('makes an equal object that shares nothing with the first', () => {
    fc.assert(
      fc.property(anyContent, (content) => {
        const copy = copyContent(content)

        expect(copy).toEqual(content)
        expect(sharedObjects(copy, content)).toBe(0)
      }),
    )
  })

  it('keeps hostile keys as keys and pollutes no prototype', () => {
    const hostile: Content = JSON.parse(
      '{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}},"toString":null}',
    )

    const copy = copyContent(hostile)

    expect(Object.keys(copy)).toEqual(['__proto__', 'constructor', 'toString'])
    expect(JSON.stringify(copy)).toBe(JSON.stringify(hostile))
    expect(Object.getPrototypeOf(copy)).toBe(Object.prototype)
    expect('polluted' in {}).toBe(false)
    expect('polluted' in copy).toBe(false)
  })

  it('copies views and subclasses of bytes to plain bytes of their own', () => {
    const bytes = Buffer.from([1, 2, 3, 4]).subarray(1, 3)

    const copy = copyContent({ bytes })

    expect(copy.bytes.constructor).toBe(Uint8Array)
    expect([...copy.bytes]).toEqual([2, 3])
    expect(copy.bytes.buffer.byteLength).toBe(2)
  })

  it('leaves out undefined and writes -0 as 0', () => {
    const copy = copyContent({ left: undefined, zero: -0 })

    expect(Object.keys(copy)).toEqual(['zero'])
    expect(copy.zero).toBe(0)
  })
})

function sharedObjects(a: unknown, b: unknown): number {
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return 0
  if (a === b) return 1
  if (a instanceof Uint8Array && b instanceof Uint8Array) return a.buffer === b.buffer ? 1 : 0
  return Object.keys(a).reduce(
    (sum, key) => sum + sharedObjects(Reflect.get(a, key), Reflect.get(b, key)),
    0,
  )
}
