import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  channelNameFault,
  checkChannelName,
  checkGroupName,
  groupNameFault,
  inboxOf,
  isReplyChannel,
  randomName,
  workChannelNameFault,
} from '../../src/names.ts'

const allowed = [...'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-']
const part = (maxLength: number) =>
  fc.string({ unit: fc.constantFrom(...allowed), minLength: 1, maxLength })

const channelFaults: readonly (readonly [name: unknown, message: string])[] = [
  ['', 'channel name "" is empty; use 1-200 characters'],
  ['a b', 'channel name "a b" has the character " "; use only A-Z a-z 0-9 . _ -'],
  ['chat\n', 'channel name "chat\\n" has the character "\\n"; use only A-Z a-z 0-9 . _ -'],
  ['room😀', 'channel name "room😀" has the character "😀"; use only A-Z a-z 0-9 . _ -'],
  ['a!b!c', 'channel name "a!b!c" has 2 exclamation marks; a reply channel has one'],
  ['a!', 'channel name "a!" has nothing on one side of "!"; a reply channel is inbox!local'],
  ['!a', 'channel name "!a" has nothing on one side of "!"; a reply channel is inbox!local'],
  ['x'.repeat(201), `channel name "${'x'.repeat(76)}... has 201 characters; use at most 200`],
  [5, 'a channel name is a string, not 5 (number); pass 1-200 of A-Z a-z 0-9 . _ -'],
  [
    undefined,
    'a channel name is a string, not undefined (undefined); pass 1-200 of A-Z a-z 0-9 . _ -',
  ],
]

describe('channelNameFault', () => {
  it('finds none in work channels and reply channels of allowed characters', () => {
    fc.assert(
      fc.property(part(200), part(99), part(100), (work, inbox, local) => {
        expect(channelNameFault(work)).toBe(undefined)
        expect(channelNameFault(`${inbox}!${local}`)).toBe(undefined)
      }),
    )
  })

  it('finds one in every name with another character', () => {
    fc.assert(
      fc.property(
        part(50),
        fc
          .string({ unit: 'grapheme', minLength: 1 })
          .filter((text) => /[^A-Za-z0-9._!-]/.test(text)),
        part(50),
        (before, bad, after) => {
          expect(channelNameFault(before + bad + after)).toMatchObject({ code: 'ERR_INVALID_NAME' })
        },
      ),
    )
  })

  it.each(channelFaults)('explains %j', (name, message) => {
    expect(channelNameFault(name)).toMatchObject({ code: 'ERR_INVALID_NAME', message })
    expect(() => checkChannelName(name)).toThrow(message)
  })
})

describe('workChannelNameFault', () => {
  it.each(['inbox!local', 'inbox!', 'a!b'])('sends a reader of %j to the inbox', (name) => {
    expect(workChannelNameFault(name)?.message).toBe(
      `a reply channel cannot be received on, ${JSON.stringify(name)}; its interface server reads it through its inbox`,
    )
  })

  it('explains other faults like those of any channel name', () => {
    expect(workChannelNameFault('a b')?.message).toBe(channelNameFault('a b')?.message)
    expect(workChannelNameFault('websocket.receive')).toBe(undefined)
  })
})

describe('groupNameFault', () => {
  it('finds none in any well-formed name of 1-200 units', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', minLength: 1, maxLength: 100 }), (name) => {
        expect(groupNameFault(name)).toBe(undefined)
      }),
    )
  })

  it.each([
    ['', 'group name "" is empty; use 1-200 well-formed characters'],
    ['\ud83d', 'group name "\\ud83d" has half a surrogate pair; use 1-200 well-formed characters'],
    [
      'x'.repeat(201),
      `group name "${'x'.repeat(76)}... has 201 characters; use 1-200 well-formed characters`,
    ],
    [null, 'a group name is a string, not null (object); pass 1-200 characters'],
  ])('explains %j', (name, message) => {
    expect(groupNameFault(name)).toMatchObject({ code: 'ERR_INVALID_NAME', message })
    expect(() => checkGroupName(name)).toThrow(message)
  })
})

describe('inboxOf', () => {
  it('gives the part of a reply channel up to its mark', () => {
    expect(inboxOf('reply.abc!def')).toBe('reply.abc!')
    expect(isReplyChannel('reply.abc!def')).toBe(true)
    expect(isReplyChannel('reply.abc')).toBe(false)
  })
})

describe('randomName', () => {
  it('makes 22 characters that are good in a channel name and never come twice', () => {
    const names = Array.from({ length: 2_000 }, randomName)

    expect(new Set(names).size).toBe(2_000)
    for (const name of names) expect(name).toMatch(/^[A-Za-z0-9_-]{22}$/)
  })
})
