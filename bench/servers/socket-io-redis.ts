// Socket.IO on Redis: node --import tsx socket-io-redis.ts pubsub|streams <Redis URL>
import { createServer } from 'node:http'
import { createAdapter as createPubSub } from '@socket.io/redis-adapter'
import { createAdapter as createStreams } from '@socket.io/redis-streams-adapter'
import { createClient } from 'redis'
import { Server } from 'socket.io'
import { serve } from './serve.ts'

const [kind, url = ''] = process.argv.slice(2)
// Without a time-out of its own for each command, which costs more than the command.
const client = createClient({ url, commandOptions: { timeout: 0 } })
await client.connect()
const server = createServer()
const transport = { transports: ['websocket'], perMessageDeflate: false } as const
const io = new Server(server, { ...transport, transports: ['websocket'] })
if (kind === 'streams') {
  io.adapter(createStreams(client))
} else {
  const subscriber = client.duplicate()
  await subscriber.connect()
  io.adapter(createPubSub(client, subscriber))
}
io.on('connection', (socket) => {
  const isGroup = socket.handshake.query.group === '1'
  if (isGroup) void socket.join('chat')
  socket.on('m', (text) => {
    if (isGroup) io.to('chat').emit('m', text)
    else socket.emit('m', text)
  })
})
serve(server)
