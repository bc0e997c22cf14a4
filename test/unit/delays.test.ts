import { Channel, defineRouting, Group, holdSends, type Message } from 'channelkit'
import { MemoryBackend } from 'channelkit/memory'
import { FakeClock, TestSite } from 'channelkit/testing'
import { describe, expect, it } from 'vitest'

/** A channel on a backend of its own, whose clock stands still. */
async function open(options: { delayedCapacity?: number } = {}) {
  const clock = new FakeClock()
  const backend = new MemoryBackend({ clock, ...options })
  const contents = async (name = 'jobs') => {
    const messages = await backend.receive([name], { max: 100, waitMs: 0 })
    return messages.map(({ content }) => content)
  }
  return {
    clock,
    backend,
    contents,
    jobs: Channel('jobs', { backend }),
    [Symbol.asyncDispose]: () => backend.close(),
  }
}

describe('Channel.send() for later', () => {
  it('delivers after delayMs, and at the time of at', async () => {
    await using site = await open()

    await site.jobs.send({ n: 1 }, { delayMs: 1_000 })
    await site.jobs.send({ n: 2 }, { at: new Date(site.clock.now() + 2_000) })
    await site.jobs.send({ n: 3 }, { at: site.clock.now() + 3_000 })

    const found: unknown[] = []
    for (const _second of [1, 2, 3]) {
      found.push(await site.contents())
      await site.clock.advance(1_000)
    }
    found.push(await site.contents())
    expect(found).toEqual([[], [{ n: 1 }], [{ n: 2 }], [{ n: 3 }]])
  })

  it('delivers at once what was due in the past', async () => {
    await using site = await open()

    await site.jobs.send({ n: 1 }, { at: new Date(0) })
    await site.clock.advance(10)

    expect(await site.contents()).toEqual([{ n: 1 }])
  })

  it('reads content before it returns', async () => {
    await using site = await open()
    const content = { n: 1 }

    const sending = site.jobs.send(content, { delayMs: 10 })
    content.n = 2
    await sending
    await site.clock.advance(10)

    expect(await site.contents()).toEqual([{ n: 1 }])
  })

  it('resolves with an id that cancel takes once', async () => {
    await using site = await open()

    const id = await site.jobs.send({ n: 1 }, { delayMs: 1_000 })
    const others = await site.jobs.send({ n: 2 }, { delayMs: 1_000 })

    expect(others).not.toBe(id)
    expect(id).toMatch(/^m\./)
    expect(await site.jobs.cancel(id)).toBe(true)
    expect(await site.jobs.cancel(id)).toBe(false)
    await site.clock.advance(1_000)
    expect(await site.contents()).toEqual([{ n: 2 }])
    expect(await site.jobs.cancel(others)).toBe(false)
  })

  it('delivers what has an id of its own once, though it is sent again after its time', async () => {
    await using site = await open()

    expect(await site.jobs.send({ n: 1 }, { id: 'report.1', delayMs: 1_000 })).toBe('report.1')
    await site.jobs.send({ n: 2 }, { id: 'report.1', delayMs: 1_000 })
    await site.clock.advance(2_000)
    await site.jobs.send({ n: 3 }, { id: 'report.1' })
    await site.clock.advance(2_000)

    expect(await site.contents()).toEqual([{ n: 1 }])
  })

  it.each([
    [{ delayMs: -1 }, 'delayMs of a message on jobs is -1; give 0 or more'],
    [{ delayMs: Number.NaN }, 'delayMs of a message on jobs is NaN; give 0 or more'],
    [{ delayMs: 400 * 86_400_000 }, 'is to wait 400 days; the longest wait is 366'],
    [{ delayMs: Number.POSITIVE_INFINITY }, 'the longest wait is 366'],
    [{ at: new Date(Number.NaN) }, 'at of a message on jobs is Invalid Date; give a Date'],
    [{ at: 1, delayMs: 1 }, 'a message on jobs has both delayMs and at'],
    [{ delayMs: 1, id: 'a b' }, 'the id of a message is "a b"; use 1-200 of'],
  ])('refuses %j', async (options, reason) => {
    await using site = await open()

    await expect(site.jobs.send({}, options)).rejects.toMatchObject({
      code: 'ERR_INVALID_ARGUMENT',
      message: expect.stringContaining(reason),
    })
  })

  it('refuses what is for a reply channel', async () => {
    await using site = await open()
    const inbox = await site.backend.openInbox<string>()
    const reply = Channel(inbox.newChannel('ada'), { backend: site.backend })

    await expect(reply.send({}, { delayMs: 1 })).rejects.toMatchObject({
      code: 'ERR_INVALID_ARGUMENT',
      message: expect.stringContaining('send it to a work channel, whose consumer answers'),
    })
  })

  it('refuses one more than delayedCapacity, and says how many wait', async () => {
    await using site = await open({ delayedCapacity: 1 })
    await site.jobs.send({}, { delayMs: 1 })

    await expect(site.jobs.send({}, { delayMs: 1 })).rejects.toMatchObject({
      code: 'ERR_CHANNEL_FULL',
      message:
        'channel jobs holds 1 messages for later; wait until some have been delivered, or raise delayedCapacity',
    })
  })

  it('is held by holdSends, and dropped when the consumer fails', async () => {
    const consumer = holdSends(async ({ content: { fails } }: Message) => {
      await Channel('results').send({ fails: fails === true }, { delayMs: 10 })
      if (fails) throw new Error('no')
    })
    await using site = await TestSite.open({ routing: defineRouting({ jobs: consumer }) })

    await Channel('jobs').send({ fails: true })
    await Channel('jobs').send({ fails: false })
    await site.advance(1_000)

    await site.expectError('no')
    const found = await site.receive('results')
    expect(found.map(({ content }) => content)).toEqual([{ fails: false }])
  })
})

describe('Group.send()', () => {
  it('refuses to wait, and says what to do', async () => {
    await using site = await open()
    const options = { delayMs: 1_000 }

    const sending = Group('chat', { backend: site.backend }).send({}, options as object)

    await expect(sending).rejects.toMatchObject({
      code: 'ERR_NOT_SUPPORTED',
      message: expect.stringContaining('whose consumer sends to the group'),
    })
  })
})
