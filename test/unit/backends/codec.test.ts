import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { decodeContent, encodeContent } from '../../../src/backends/codec.ts'
import { copyContent } from '../../../src/content.ts'
import { anyContent } from '../../support/arbitrary-content.ts'

const unlimited = Number.POSITIVE_INFINITY

describe('encodeContent', () => {
  it('makes what decodeContent turns into equal content, as text and as bytes', () => {
    fc.assert(
      fc.property(anyContent, (content) => {
        const encoded = encodeContent(content, unlimited)

        expect(decodeContent(encoded)).toEqual(copyContent(content))
        expect(decodeContent(new Uint8Array(Buffer.from(encoded)))).toEqual(copyContent(content))
      }),
    )
  })

  it('writes JSON behind the version, and bytes beside it', () => {
    expect(encodeContent({ text: 'ö' }, unlimited)).toBe('1{"text":"ö"}')

    const json = '[{"a":[null]},[[["a",0],2]]]'
    const expected = Buffer.concat([
      Buffer.from([0x32, 0, 0, 0, json.length]),
      Buffer.from(json),
      Buffer.from([7, 8]),
    ])
    expect(encodeContent({ a: [new Uint8Array([7, 8])] }, unlimited)).toEqual(expected)
  })

  it('rejects with the size what is longer than the limit, and takes what is as long', () => {
    const content = { text: 'x'.repeat(10), bytes: new Uint8Array(100) }
    const size = encodeContent(content, unlimited).length

    expect(encodeContent(content, size).length).toBe(size)
    expect(() => encodeContent(content, size - 1)).toThrow(
      `content is ${size} bytes encoded, more than ${size - 1}; send it in parts, or a reference to it`,
    )
    expect(() => encodeContent({ text: '😀' }, 15)).toThrow(/content is 16 bytes encoded/)
  })

  it('rejects invalid content before it measures it', () => {
    expect(() => encodeContent({ ratio: Number.NaN }, 1)).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_CONTENT' }),
    )
  })
})

describe('decodeContent', () => {
  it('gives fresh bytes that are not part of what was decoded', () => {
    const encoded = encodeContent({ bytes: new Uint8Array([1, 2]) }, unlimited) as Buffer

    const { bytes } = decodeContent(encoded)
    encoded.fill(0)

    expect(bytes).toEqual(new Uint8Array([1, 2]))
  })

  it.each(['', '3{}', '{}'])('rejects %j, naming the version it found', (encoded) => {
    expect(() => decodeContent(encoded)).toThrow(
      expect.objectContaining({
        code: 'ERR_INVALID_CONTENT',
        message: `stored content starts with ${JSON.stringify(encoded.slice(0, 1))}; run the same version of Channelkit everywhere`,
      }),
    )
  })

  it.each(['1', '1{"a":', '1[1]', '1null', '2', '2\u0000\u0000\u0000\u0009{'])(
    'rejects %j as damaged',
    (encoded) => {
      expect(() => decodeContent(Buffer.from(encoded))).toThrow('stored content is damaged')
    },
  )

  it.each([
    '[{"a":null},[[["a"],5]]]',
    '[{"a":null},[[["a"],1]]]',
    '[{"a":null},[]]',
    '[{"a":null},[[["a"],-5]]]',
    '[{"a":null},[[["a"],"4"]]]',
    '[{"a":null},[[["b"],4]]]',
    '[{"a":null},[[["a","b"],4]]]',
    '[{"a":null},[[[],4]]]',
    '[{"a":null},null]',
    '[[null],[[[0],4]]]',
  ])('rejects %s with four bytes behind it as damaged', (json) => {
    const encoded = Buffer.concat([withMarks(json), Buffer.alloc(4)])

    expect(() => decodeContent(encoded)).toThrow(
      expect.objectContaining({
        code: 'ERR_INVALID_CONTENT',
        message: 'stored content is damaged; it is dropped',
      }),
    )
  })

  it('writes along hostile paths to no prototype', () => {
    for (const path of ['["__proto__","polluted"]', '["constructor","prototype","polluted"]']) {
      expect(() => decodeContent(withMarks(`[{"a":null},[[${path},0]]]`))).toThrow(
        expect.objectContaining({ code: 'ERR_INVALID_CONTENT' }),
      )
    }
    expect('polluted' in {}).toBe(false)
  })

  it('gives content or ERR_INVALID_CONTENT for whatever is stored', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.uint8Array().map((bytes) => Buffer.concat([Buffer.from('2'), bytes])),
          fc.json().map((json) => withMarks(json)),
          fc.string().map((text) => `1${text}`),
        ),
        (encoded) => {
          try {
            expect(decodeContent(encoded)).toBeTypeOf('object')
          } catch (error) {
            expect(error).toMatchObject({ code: 'ERR_INVALID_CONTENT' })
          }
        },
      ),
    )
  })
})

/** The second form with `json` as its head and no bytes behind. */
function withMarks(json: string): Buffer {
  const body = Buffer.from(json)
  const head = Buffer.alloc(5)
  head[0] = 0x32
  head.writeUInt32BE(body.byteLength, 1)
  return Buffer.concat([head, body])
}
