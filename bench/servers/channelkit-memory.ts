import { createServer } from 'node:http'
import { defineConfig, defineRouting, Group, type Message } from 'channelkit'
import { attach } from 'channelkit/server'
import { serve } from './serve.ts'

const isGroup = (message: Message): boolean => message.content.path === '/group'

const config = defineConfig({
  websocket: { allowMissingOrigin: true, maxSockets: 20_000 },
  channelBackends: {
    default: {
      backend: 'memory:',
      routing: defineRouting({
        'websocket.connect': async (message) => {
          if (isGroup(message)) await Group('chat').add(message.replyChannel)
        },
        'websocket.receive': async (message) => {
          const { content } = message.content
          if (isGroup(message)) await Group('chat').send({ content })
          else await message.replyChannel.send({ content })
        },
      }),
    },
  },
})
const server = createServer()
await attach(server, config, { worker: true })
serve(server)
