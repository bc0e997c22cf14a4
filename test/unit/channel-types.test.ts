import { content, defineChannels } from 'channelkit'
import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { validateContent } from '../../src/channel-types.ts'

describe('defineChannels', () => {
  it('gives back the declarations', () => {
    const declarations = { jobs: content<{ n: number }>() }

    expect(defineChannels(declarations)).toBe(declarations)
  })

  it.each([
    ['a b', 'has the character " "'],
    ['reply.x!y', 'a reply channel cannot be received on'],
  ])('refuses the channel name %j', (name, reason) => {
    expect(() => defineChannels({ [name]: {} })).toThrow(reason)
  })
})

describe('validateContent', () => {
  const person = z.object({ name: z.string(), address: z.object({ zip: z.string() }).optional() })

  it('passes on content as it is where there is no schema', () => {
    const value = { n: 1 }

    expect(validateContent('jobs', undefined, value)).toBe(value)
    expect(validateContent('jobs', content<{ n: number }>(), value)).toBe(value)
  })

  it('gives what the schema makes of it', () => {
    expect(validateContent('jobs', { schema: person }, { name: 'Ann', extra: 1 })).toEqual({
      name: 'Ann',
    })
  })

  it('waits for a schema that asks elsewhere', async () => {
    const schema = z.object({ name: z.string() }).refine(async ({ name }) => name !== 'taken')

    await expect(validateContent('jobs', { schema }, { name: 'free' })).resolves.toEqual({
      name: 'free',
    })
    await expect(validateContent('jobs', { schema }, { name: 'taken' })).rejects.toMatchObject({
      code: 'ERR_INVALID_CONTENT',
    })
  })

  it.each([
    [{}, 'name: '],
    [{ name: 'Ann', address: { zip: 1 } }, 'address.zip: '],
    [{ name: 1, address: 2 }, /name: .*; address: /],
  ])('refuses %j, naming the place', (value, place) => {
    const validate = () => validateContent('jobs', { schema: person }, value)

    expect(validate).toThrow(place)
    expect(validate).toThrow(expect.objectContaining({ code: 'ERR_INVALID_CONTENT' }))
    expect(validate).toThrow(/^content of channel "jobs" does not fit its schema; /)
  })

  it('names no more than three places', () => {
    const four = z.object({ a: z.string(), b: z.string(), c: z.string(), d: z.string() })

    expect(() => validateContent('jobs', { schema: four }, {})).toThrow(/a: .*; b: .*; c: [^;]*$/)
  })

  it('names a place that the schema gives as an object, and none for the whole', () => {
    const schema = (
      path: readonly PropertyKey[] | readonly { key: PropertyKey }[] | undefined,
    ) => ({
      '~standard': {
        version: 1 as const,
        vendor: 'test',
        validate: () => ({ issues: [{ message: 'is odd', ...(path && { path }) }] }),
      },
    })

    expect(() =>
      validateContent('jobs', { schema: schema([{ key: 'list' }, { key: 0 }]) }, {}),
    ).toThrow('list.0: is odd')
    expect(() => validateContent('jobs', { schema: schema(undefined) }, {})).toThrow(
      'its schema; is odd',
    )
  })
})
