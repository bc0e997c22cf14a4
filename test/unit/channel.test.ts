import { Channel, defineChannels, setup } from 'channelkit'
import { MemoryBackend } from 'channelkit/memory'
import { TestSite } from 'channelkit/testing'
import { describe, expect, it } from 'vitest'
import { z } from 'zod'

describe('Channel', () => {
  it.each([
    ['', 'is empty'],
    ['a b', 'has the character " "'],
    ['jobs!', 'has nothing on one side of "!"'],
    ['x'.repeat(201), 'has 201 characters'],
    [undefined, 'is a string, not undefined'],
  ])('refuses the name %j', (name, reason) => {
    expect(() => Channel(name as string)).toThrow(reason)
    expect(() => Channel(name as string)).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_NAME' }),
    )
  })

  it('is its name as text and in JSON', () => {
    const channel = Channel('jobs')

    expect(`${channel}`).toBe('jobs')
    expect(JSON.stringify({ channel })).toBe('{"channel":"jobs"}')
  })

  describe('.send()', () => {
    it('puts messages at the end of the channel, in order', async () => {
      await using site = await TestSite.open()

      await Channel('jobs').send({ n: 1 })
      await Channel('jobs').send({ n: 2 })

      const messages = await site.receive('jobs')
      expect(messages.map(({ content }) => content)).toEqual([{ n: 1 }, { n: 2 }])
    })

    it('keeps content as it was when it was sent', async () => {
      await using site = await TestSite.open()
      const content = { list: [1] }

      const sent = Channel('jobs').send(content)
      content.list.push(2)
      await sent

      const [message] = await site.receive('jobs')
      expect(message?.content).toEqual({ list: [1] })
    })

    it('goes to the backend that is given, by object or by name', async () => {
      await using site = await TestSite.open({ channelBackends: { default: {}, slow: {} } })
      const own = new MemoryBackend()

      await Channel('jobs', { backend: own }).send({ to: 'own' })
      await Channel('jobs', { backend: 'slow' }).send({ to: 'slow' })

      expect(await site.receive('jobs')).toEqual([])
      const [slow] = await site.receive('jobs', { backend: 'slow' })
      expect(slow?.content).toEqual({ to: 'slow' })
      const [message] = await own.receive(['jobs'], { max: 1, waitMs: 0 })
      expect(message?.content).toEqual({ to: 'own' })
      await own.close()
    })

    it('rejects with ERR_INVALID_CONFIG for a backend that is not in the config', async () => {
      await using site = await TestSite.open()

      const sending = Channel('jobs', { backend: 'other' }).send({})

      await expect(sending).rejects.toMatchObject({
        code: 'ERR_INVALID_CONFIG',
        message: 'there is no channel backend "other"; the config has default',
      })
      expect(await site.receive('jobs')).toEqual([])
    })

    it('rejects with ERR_NOT_CONFIGURED where no site is set up', async () => {
      await expect(Channel('jobs').send({})).rejects.toMatchObject({ code: 'ERR_NOT_CONFIGURED' })
    })

    it('rejects with ERR_CHANNEL_FULL beyond the capacity, and counts it', async () => {
      await using site = await TestSite.open({}, { backend: { capacity: 1 } })
      await Channel('jobs').send({ n: 1 })

      await expect(Channel('jobs').send({ n: 2 })).rejects.toMatchObject({
        code: 'ERR_CHANNEL_FULL',
        category: 'operational',
      })

      expect(site.counters()['dropped.full']).toBe(1)
      await Channel('others').send({})
    })

    it.each([
      ['a list', []],
      ['null', null],
      ['a Date', { at: new Date(0) }],
      ['a function', { run: () => {} }],
      ['NaN', { n: Number.NaN }],
    ])('rejects with ERR_INVALID_CONTENT for %s', async (_what, content) => {
      await using site = await TestSite.open()

      const sending = Channel('jobs').send(content as never)

      await expect(sending).rejects.toMatchObject({ code: 'ERR_INVALID_CONTENT' })
      expect(await site.receive('jobs')).toEqual([])
    })

    it('checks content against the schema of its declaration and sends what that makes of it', async () => {
      const channels = defineChannels({
        orders: { schema: z.object({ id: z.coerce.number(), note: z.string().default('') }) },
      })
      await using site = await TestSite.open({ channels })

      await Channel('orders').send({ id: '7' })
      const refused = Channel('orders').send({ id: 'seven', note: 1 })

      await expect(refused).rejects.toMatchObject({ code: 'ERR_INVALID_CONTENT' })
      await expect(refused).rejects.toThrow(/content of channel "orders" .* id: .*; note: /)
      const messages = await site.receive('orders')
      expect(messages.map(({ content }) => content)).toEqual([{ id: 7, note: '' }])
    })
  })
})

describe('setup', () => {
  it('makes a site from a config file the one that Channel uses', async () => {
    const site = await setup('test/support/sites/greeting/channels.config.ts')

    await Channel('greetings').send({ to: 'ann' })

    const [message] = await site.backend().receive(['greetings'], { max: 1, waitMs: 0 })
    expect(message?.content).toEqual({ to: 'ann' })
    await site.close()
  })
})
