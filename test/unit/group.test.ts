import { Channel, Group } from 'channelkit'
import { TestSite } from 'channelkit/testing'
import { describe, expect, it } from 'vitest'

describe('Group', () => {
  it.each([
    ['', 'is empty'],
    ['x'.repeat(201), 'has 201 characters'],
    [7, 'is a string, not 7'],
  ])('refuses the name %j', (name, reason) => {
    expect(() => Group(name as string)).toThrow(reason)
  })

  it('takes any name that users make up', async () => {
    await using site = await TestSite.open()

    await Group('chat: Küche 🍳 #1').add('jobs')
    await Group('chat: Küche 🍳 #1').send({ n: 1 })

    expect(await site.receive('jobs')).toHaveLength(1)
  })

  describe('.send()', () => {
    it('gives each member one copy, however often it was added', async () => {
      await using site = await TestSite.open()
      await Group('all').add('first')
      await Group('all').add('first')
      await Group('all').add(Channel('second'))

      await Group('all').send({ n: 1 })

      expect((await site.receive('first')).map(({ content }) => content)).toEqual([{ n: 1 }])
      expect((await site.receive('second')).map(({ content }) => content)).toEqual([{ n: 1 }])
    })

    it('passes over those who left, and a group that nobody is in', async () => {
      await using site = await TestSite.open()
      await Group('all').add('first')
      await Group('all').discard(Channel('first'))
      await Group('all').discard('never-there')

      await Group('all').send({ n: 1 })
      await Group('nobody').send({ n: 1 })

      expect(await site.receive('first')).toEqual([])
    })

    it('passes over a member that is full, and counts it', async () => {
      await using site = await TestSite.open({}, { backend: { capacity: 1 } })
      await Group('all').add('full')
      await Group('all').add('free')
      await Channel('full').send({ n: 0 })

      await Group('all').send({ n: 1 })

      expect((await site.receive('full')).map(({ content }) => content)).toEqual([{ n: 0 }])
      expect((await site.receive('free')).map(({ content }) => content)).toEqual([{ n: 1 }])
      expect(site.counters()['dropped.full']).toBe(1)
    })

    it('rejects with ERR_INVALID_CONTENT for what cannot travel', async () => {
      await using site = await TestSite.open()
      await Group('all').add('first')

      await expect(Group('all').send({ at: new Date(0) } as never)).rejects.toMatchObject({
        code: 'ERR_INVALID_CONTENT',
      })
      expect(await site.receive('first')).toEqual([])
    })
  })

  it('forgets a member after the group expiry, unless it is added again', async () => {
    await using site = await TestSite.open()
    await Group('all').add('renewed')
    await Group('all').add('left')
    await site.advance(40_000)
    await Group('all').add('renewed')

    await site.advance(20_000)

    expect(await Group('all').channels()).toEqual(['renewed'])
  })

  it.each([
    ['a b', 'has the character " "'],
    [undefined, 'is a string, not undefined'],
    [{}, 'is a string, not undefined'],
  ])('rejects with ERR_INVALID_NAME when %j is added', async (channel, reason) => {
    await using _site = await TestSite.open()

    await expect(Group('all').add(channel as string)).rejects.toThrow(reason)
    await expect(Group('all').discard(channel as string)).rejects.toMatchObject({
      code: 'ERR_INVALID_NAME',
    })
  })
})
