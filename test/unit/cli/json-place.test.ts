import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { findJsonFault } from '../../../src/cli/json-place.ts'

function isJson(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

describe('findJsonFault', () => {
  it('finds a fault exactly where JSON.parse does not take a text', () => {
    const pieces = fc.constantFrom(...'{}[]:,"\\-.0129eE+tfnu \n', 'true', 'null', '"a"', '\\u00e9')
    const damaged = fc
      .tuple(fc.json(), fc.nat(), pieces, fc.nat(2))
      .map(([json, at, piece, cut]) => {
        const place = at % (json.length + 1)
        return json.slice(0, place) + piece + json.slice(place + cut)
      })
    const made = fc.array(pieces, { maxLength: 12 }).map((parts) => parts.join(''))

    fc.assert(
      fc.property(fc.oneof(fc.json(), damaged, made), (text) => {
        expect(findJsonFault(text) === undefined).toBe(isJson(text))
      }),
      { numRuns: 5_000 },
    )
  })

  it('bears long strings, many escapes and deep lists', () => {
    const strings = ['x', '\\n'].map((piece) => `{"a": "${piece.repeat(1_000_000)}"`)

    for (const text of strings) expect(findJsonFault(text)?.expected).toBe('"," or "}"')
    expect(findJsonFault('['.repeat(1_000_000))?.column).toBe(1_000_001)
  })

  it.each([
    ['', 1, 1, 'the end', 'a value'],
    ['{"a": 1\n "b": 2}', 2, 2, '"\\"b\\": 2}"', '"," or "}"'],
    ["{'a': 1}", 1, 2, `"'a': 1}"`, 'a key or "}"'],
    ['[1, 2,]', 1, 7, '"]"', 'a value'],
    ['{"a" 1}', 1, 6, '"1}"', '":"'],
    ['{} {}', 1, 4, '"{}"', 'the end'],
    ['{"a": 01}', 1, 7, '"01}"', 'a value'],
  ])('names the place in %j', (text, line, column, found, expected) => {
    expect(findJsonFault(text)).toEqual({ line, column, found, expected })
  })
})
