import { Channel, defineRouting, type Message } from 'channelkit'
import { TestSite } from 'channelkit/testing'
import { describe, expect, it } from 'vitest'

/** Runs one message through a consumer and gives what it was handed. */
async function received(site: TestSite, content: Parameters<Channel['send']>[0]): Promise<Message> {
  await Channel('jobs').send(content)
  const [message] = await site.receive('jobs')
  if (!message) throw new Error('nothing was received')
  return message
}

describe('Message', () => {
  it('has the content, the channel, its attempts and the backend', async () => {
    await using site = await TestSite.open()

    const message = await received(site, { n: 1 })

    expect(message).toMatchObject({ content: { n: 1 }, channel: 'jobs', attempts: 0 })
    expect(message.backend.supports.multipleProcesses).toBe(false)
  })

  it('holds a content of its own', async () => {
    const contents: Message['content'][] = []
    const routing = defineRouting({
      jobs: (message: Message) => {
        const content = message.content as { n: number }
        contents.push({ ...content })
        content.n = 100
      },
    })
    await using site = await TestSite.open({ routing })
    const content = { n: 1 }

    await Channel('jobs').send(content)
    await Channel('jobs').send(content)
    await site.drain()

    expect(contents).toEqual([{ n: 1 }, { n: 1 }])
    expect(content).toEqual({ n: 1 })
  })

  describe('.replyChannel', () => {
    it('answers whom the content names', async () => {
      await using site = await TestSite.open()
      const message = await received(site, { reply_channel: 'answers' })

      await message.replyChannel.send({ n: 2 })

      expect(message.hasReplyChannel).toBe(true)
      expect(message.replyChannel).toBe(message.replyChannel)
      expect((await site.receive('answers')).map(({ content }) => content)).toEqual([{ n: 2 }])
    })

    it.each([[undefined], [null], [7], [['answers']]])(
      'throws ERR_NO_REPLY_CHANNEL when reply_channel is %j',
      async (replyChannel) => {
        await using site = await TestSite.open()
        const message = await received(site, { reply_channel: replyChannel })

        expect(message.hasReplyChannel).toBe(false)
        expect(() => message.replyChannel).toThrow(
          expect.objectContaining({
            code: 'ERR_NO_REPLY_CHANNEL',
            message:
              'a message on jobs has no reply channel; send it with reply_channel in its content, or ask hasReplyChannel first',
          }),
        )
      },
    )

    it('rejects a send where the sender wrote a name that is none', async () => {
      await using site = await TestSite.open()
      const message = await received(site, { reply_channel: 'not a name' })

      await expect(message.replyChannel.send({})).rejects.toMatchObject({
        code: 'ERR_INVALID_NAME',
      })
    })
  })
})
