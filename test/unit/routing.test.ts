import { resolve } from 'node:path'
import { Channel, defineRouting } from 'channelkit'
import { TestSite } from 'channelkit/testing'
import { describe, expect, it } from 'vitest'
import { consumerName } from '../../src/consumer.ts'
import { loadRouting } from '../../src/routing.ts'

const root = 'test/support/sites'
function first(): void {}
function second(): void {}

describe('defineRouting', () => {
  it('routes by exact channel name, to functions and references', async () => {
    const routing = defineRouting({ jobs: first, 'jobs.late': './consumers.ts#second' })

    expect([...routing.routes]).toEqual([
      ['jobs', first],
      ['jobs.late', './consumers.ts#second'],
    ])
  })

  it('takes in other routings', () => {
    const more = defineRouting({ others: second })

    const routing = defineRouting({ jobs: first }, more, defineRouting({ third: first }))

    expect([...routing.routes.keys()]).toEqual(['jobs', 'others', 'third'])
  })

  it.each([
    [first, second, 'channel jobs has two consumers, first and second'],
    [first, './a.ts#b', 'channel jobs has two consumers, first and ./a.ts#b'],
    [() => {}, './a.ts#b', 'channel jobs has two consumers, anonymous consumer and ./a.ts#b'],
  ] as const)('refuses a second consumer on a channel, %o and %o', (one, other, message) => {
    const include = defineRouting({ jobs: other })

    expect(() => defineRouting({ jobs: one }, include)).toThrow(
      expect.objectContaining({
        code: 'ERR_DUPLICATE_CONSUMER',
        message: `${message}; a channel has one, so let one call the other`,
      }),
    )
  })

  it.each([
    ['undefined', undefined],
    ['null', null],
    ['7', 7],
    ['"./consumers.ts"', './consumers.ts'],
    ['"#name"', '#name'],
    ['"./consumers.ts#"', './consumers.ts#'],
    ['[object Object]', {}],
  ])('refuses the route %s', (shownRoute, route) => {
    expect(() => defineRouting({ jobs: route as never })).toThrow(
      expect.objectContaining({
        code: 'ERR_INVALID_CONFIG',
        message: `the route of channel jobs is ${shownRoute}; give a function or './file.ts#name'`,
      }),
    )
  })

  it.each([
    ['web socket', 'has the character " "'],
    ['reply.x!y', 'a reply channel cannot be received on'],
    ['', 'is empty'],
  ])('refuses the channel name %j', (name, reason) => {
    expect(() => defineRouting({ [name]: first })).toThrow(reason)
  })
})

describe('loadRouting', () => {
  it('loads what references name, and calls the consumer by its reference', async () => {
    const routing = defineRouting({ greetings: './greeting/consumers.ts#pass', jobs: first })

    const loaded = await loadRouting(routing, root)

    const consumer = loaded.get('greetings')
    expect(consumer && consumerName(consumer)).toBe('./greeting/consumers.ts#pass')
    expect(loaded.get('jobs')).toBe(first)
  })

  it('runs a consumer that was loaded by reference', async () => {
    const routing = defineRouting({ greetings: './greeting/consumers.ts#pass' })
    await using site = await TestSite.open({ routing }, { root })

    await Channel('greetings').send({ to: 'ann' })

    expect((await site.receive('passed')).map(({ content }) => content)).toEqual([{ to: 'ann' }])
  })

  const path = (file: string) => resolve(root, file)
  it.each([
    [
      './nowhere.ts#pass',
      `"./nowhere.ts#pass", and there is no file ${path('nowhere.ts')}; references start from ${resolve(root)}, the folder of the config file or the root given to setup`,
    ],
    [
      './greeting/consumers.ts#past',
      '"./greeting/consumers.ts#past", and ./greeting/consumers.ts has no export "past"; it exports app, channelRouting, notAFunction, pass',
    ],
    [
      './greeting/consumers.ts#__proto__',
      '"./greeting/consumers.ts#__proto__", and ./greeting/consumers.ts has no export "__proto__"; it exports app, channelRouting, notAFunction, pass',
    ],
    [
      './greeting/consumers.ts#notAFunction',
      '"./greeting/consumers.ts#notAFunction", which is "pass"; export a function',
    ],
    [
      './broken.ts#pass',
      `"./broken.ts#pass", and ${path('broken.ts')} cannot be loaded; RangeError: this file cannot be loaded`,
    ],
    [
      './empty.ts#pass',
      '"./empty.ts#pass", and ./empty.ts has no export "pass"; it exports nothing',
    ],
  ] as const)('rejects with ERR_CONSUMER_NOT_FOUND for %s', async (reference, rest) => {
    const loading = loadRouting(defineRouting({ jobs: reference }), root)

    await expect(loading).rejects.toMatchObject({
      code: 'ERR_CONSUMER_NOT_FOUND',
      message: `the route of channel jobs points to ${rest}`,
    })
  })

  it('keeps the error of a file that cannot be loaded as the cause', async () => {
    const loading = loadRouting(defineRouting({ jobs: './broken.ts#pass' }), root)

    await expect(loading).rejects.toMatchObject({ cause: { name: 'RangeError' } })
  })
})
