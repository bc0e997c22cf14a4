import { Channel, type Consumer, defineChannels, defineRouting, Group, holdSends } from 'channelkit'
import { TestSite } from 'channelkit/testing'
import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { deferred } from '../../support/deferred.ts'

function siteWith(consumer: Consumer): Promise<TestSite> {
  const channels = defineChannels({ numbers: { schema: z.object({ n: z.number() }) } })
  return TestSite.open({ routing: defineRouting({ jobs: holdSends(consumer) }), channels })
}

async function contentsOn(site: TestSite, channel: string): Promise<unknown[]> {
  return (await site.receive(channel)).map(({ content }) => content)
}

describe('holdSends', () => {
  it('shows what a consumer sends only after it has ended, in the order of its calls', async () => {
    const held = deferred()
    await using site = await siteWith(async () => {
      await Channel('results').send({ n: 1 })
      await Group('all').send({ n: 2 })
      await Channel('results').send({ n: 3 })
      await held.promise
    })
    await Group('all').add('results')

    await Channel('jobs').send({})
    await site.advance(0)
    expect(await site.channel('results').send({ n: 0 })).toBe(undefined)
    held.resolve()

    expect(await contentsOn(site, 'results')).toEqual([{ n: 0 }, { n: 1 }, { n: 2 }, { n: 3 }])
  })

  it('keeps the order of its calls though a schema takes longer for the first', async () => {
    const slow = deferred()
    const schema = z.object({ n: z.number() }).refine(async ({ n }) => {
      if (n === 1) await slow.promise
      return true
    })
    const consumer = holdSends(async () => {
      for (const n of [1, 2, 3]) await Channel('slow').send({ n })
    })
    await using site = await TestSite.open({
      routing: defineRouting({ jobs: consumer }),
      channels: defineChannels({ slow: { schema } }),
    })
    await Channel('jobs').send({})
    await site.advance(0)
    slow.resolve()

    expect(await contentsOn(site, 'slow')).toEqual([{ n: 1 }, { n: 2 }, { n: 3 }])
  })

  it('sends nothing when the consumer fails', async () => {
    await using site = await siteWith(async () => {
      await Channel('results').send({ n: 1 })
      throw new Error('broken')
    })

    await Channel('jobs').send({})

    await site.expectError('broken')
    expect(await contentsOn(site, 'results')).toEqual([])
  })

  it('keeps content as it was when it was sent', async () => {
    await using site = await siteWith(async () => {
      const content = { n: 1 }
      await Channel('results').send(content)
      content.n = 2
    })

    await Channel('jobs').send({})

    expect(await contentsOn(site, 'results')).toEqual([{ n: 1 }])
  })

  it('does not hold what is to go immediately', async () => {
    await using site = await siteWith(async () => {
      await Channel('results').send({ n: 1 })
      await Channel('results').send({ n: 2 }, { immediately: true })
      throw new Error('broken')
    })

    await Channel('jobs').send({})

    await site.expectError('broken')
    expect(await contentsOn(site, 'results')).toEqual([{ n: 2 }])
  })

  it('does not hold what a consumer without it sends, nor other code', async () => {
    const held = deferred()
    const routing = defineRouting({
      jobs: async () => {
        await Channel('results').send({ n: 1 })
        await held.promise
      },
    })
    await using site = await TestSite.open({ routing })

    await Channel('jobs').send({})
    await site.advance(0)
    const [first] = await site
      .channel('results')
      .send({ n: 2 })
      .then(() => site.log.slice())
    held.resolve()

    expect(first).toBe(undefined)
    expect(await contentsOn(site, 'results')).toEqual([{ n: 1 }, { n: 2 }])
  })

  it('does not hold, nor lose, what runs on after the end sends', async () => {
    const held = deferred()
    await using site = await siteWith(() => {
      void held.promise.then(() => Channel('results').send({ n: 1 }))
    })
    await Channel('jobs').send({})
    await site.drain()

    held.resolve()

    expect(await contentsOn(site, 'results')).toEqual([{ n: 1 }])
  })

  it('rejects content that cannot travel at once', async () => {
    const errors: unknown[] = []
    await using site = await siteWith(async () => {
      await Channel('results')
        .send({ at: new Date(0) } as never)
        .catch((error: unknown) => errors.push(error))
    })

    await Channel('jobs').send({})
    await site.drain()

    expect(errors).toMatchObject([{ code: 'ERR_INVALID_CONTENT' }])
    expect(await contentsOn(site, 'results')).toEqual([])
  })

  it('fails the consumer when one of its sends fails in the end, after the others', async () => {
    await using site = await siteWith(async () => {
      await Channel('numbers').send({ n: 'many' } as never)
      await Channel('results').send({ n: 1 })
    })

    await Channel('jobs').send({})

    expect(await contentsOn(site, 'results')).toEqual([{ n: 1 }])
    await site.expectError('content of channel "numbers"')
  })
})
