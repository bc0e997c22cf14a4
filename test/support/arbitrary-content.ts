import fc from 'fast-check'
import type { Content, ContentValue } from '../../src/content.ts'

const key = fc.oneof(
  fc.string({ unit: 'binary' }),
  fc.constantFrom('__proto__', 'constructor', 'toString', '', 'a.b', '0', '\ud800'),
)

const text = fc.oneof(
  fc.string({ unit: 'binary' }),
  // Any UTF-16 units, halves of surrogate pairs among them.
  fc.array(fc.integer({ min: 0, max: 0xffff })).map((units) => String.fromCharCode(...units)),
)

const { value } = fc.letrec<{ value: ContentValue }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    text,
    fc.double({ noNaN: true, noDefaultInfinity: true }).map((number) => number + 0),
    fc.maxSafeInteger(),
    fc.boolean(),
    fc.constant(null),
    fc.uint8Array(),
    fc.array(tie('value'), { maxLength: 4 }),
    fc.dictionary(key, tie('value'), { maxKeys: 4, noNullPrototype: true }),
  ),
}))

/** Any content that can be sent, hostile keys and halves of surrogate pairs included. */
export const anyContent: fc.Arbitrary<Content> = fc.dictionary(key, value, {
  maxKeys: 5,
  noNullPrototype: true,
})

const cyclic: Record<string, unknown> = {}
cyclic.self = cyclic

/** Content that contains itself. */
export const cyclicContent: unknown = cyclic
