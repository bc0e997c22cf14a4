import { defineRouting, Group, type Message, route } from 'channelkit'

async function makeReport({ replyChannel }: Message): Promise<void> {
  await replyChannel.send({ content_type: 'text/plain', content: 'All is well.\n' })
}

async function remind({ content }: Message): Promise<void> {
  await Group('news').send({ content: String(content.text) })
}

export const channelRouting = defineRouting(
  { reports: makeReport, reminders: remind },
  route('websocket.connect', { path: '/news' }, async ({ replyChannel }) => {
    await Group('news').add(replyChannel)
  }),
)
