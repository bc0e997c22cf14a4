// The site of a fleet's processes: echoes, or sends to a group, as its path says.
import { defineConfig, defineRouting, Group } from 'channelkit'

const backend = process.env.CHANNELS_URL ?? 'sqlite:channels.sqlite'

export const config = defineConfig({
  websocket: { allowMissingOrigin: true, maxSockets: 20_000 },
  channelBackends: {
    default: {
      backend,
      routing: defineRouting({
        'websocket.connect': async (message) => {
          if (message.content.path === '/group') await Group('chat').add(message.replyChannel)
        },
        'websocket.receive': async (message) => {
          const { content, path } = message.content
          if (path === '/group') await Group('chat').send({ content })
          else await message.replyChannel.send({ content })
        },
      }),
    },
  },
})
