// The site of a fleet's processes: echoes, or sends to a group, as its path says; with LINEARIZED set
// one message of a client at a time.
import {
  type Consumer,
  defineConfig,
  defineRouting,
  Group,
  linearize,
  type Message,
} from 'channelkit'

const backend = process.env.CHANNELS_URL ?? 'sqlite:channels.sqlite'

const receive: Consumer<Message<'websocket.receive'>> = async (message) => {
  const { content, path } = message.content
  if (path === '/group') await Group('chat').send({ content })
  else await message.replyChannel.send({ content })
}

export const config = defineConfig({
  websocket: { allowMissingOrigin: true, maxSockets: 20_000 },
  channelBackends: {
    default: {
      backend,
      routing: defineRouting({
        'websocket.connect': async (message) => {
          if (message.content.path === '/group') await Group('chat').add(message.replyChannel)
        },
        'websocket.receive': process.env.LINEARIZED ? linearize(receive) : receive,
      }),
    },
  },
})
