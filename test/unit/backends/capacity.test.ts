import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { capacityLookup } from '../../../src/backends/capacity.ts'

describe('capacityLookup', () => {
  it.each<[pattern: string | RegExp, matching: string[], other: string[]]>([
    ['http.request', ['http.request'], ['http-request', 'http.request.body', 'xhttp.request']],
    ['http.*', ['http.request', 'http.'], ['http', 'https.request', 'my.http.request']],
    ['*', ['a', 'anything.at-all_'], []],
    ['*.end', ['the.end', '.end'], ['end', 'the.ending']],
    ['a*b*c', ['abc', 'a.b.c', 'aXbYbZc'], ['ab', 'acb']],
    [/fast\.\d+/, ['fast.1', 'fast.23'], ['fast.', 'fast.1x', 'very.fast.1']],
    [/one|two/, ['one', 'two'], ['oneself', 'stwo']],
    [/^chat$/gi, ['chat', 'CHAT'], ['chats']],
    [/chat/y, ['chat'], ['achat']],
  ])('matches the whole name with %s', (pattern, matching, other) => {
    const capacityOf = capacityLookup(1, [[pattern, 2]])

    for (const name of [...matching, ...matching])
      expect([name, capacityOf(name)]).toEqual([name, 2])
    for (const name of other) expect([name, capacityOf(name)]).toEqual([name, 1])
  })

  it('takes the first rule that matches', () => {
    const capacityOf = capacityLookup(1, [
      ['a*', 2],
      ['ab', 3],
      [/.b/, 4],
    ])

    expect(['ab', 'cb', 'c'].map(capacityOf)).toEqual([2, 4, 1])
  })

  it('treats every character of a glob but * as itself', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), fc.string(), (pattern, name) => {
        const literal = pattern.replaceAll('*', '')
        const capacityOf = capacityLookup(1, [[literal, 2]])

        expect(capacityOf(literal)).toBe(2)
        expect(capacityOf(name)).toBe(name === literal ? 2 : 1)
      }),
    )
  })

  it('gives the same answer after more names than it remembers', () => {
    const capacityOf = capacityLookup(1, [['x*', 2]])

    for (let index = 0; index < 10_001; index++) capacityOf(`y${index}`)

    expect(capacityOf('y0')).toBe(1)
    expect(capacityOf('x0')).toBe(2)
  })

  it.each([0, -1, 1.5, Number.NaN])('rejects a capacity of %s with the rule', (limit) => {
    expect(() => capacityLookup(1, [['slow.*', limit]])).toThrow(
      `channelCapacity of "slow.*" is ${limit}; give a whole number from 1`,
    )
  })
})
