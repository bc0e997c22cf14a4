import { createServer } from 'node:http'
import { Server } from 'socket.io'
import { serve } from './serve.ts'

const server = createServer()
const io = new Server(server, { transports: ['websocket'], perMessageDeflate: false })
io.on('connection', (socket) => {
  const isGroup = socket.handshake.query.group === '1'
  if (isGroup) void socket.join('chat')
  socket.on('m', (text) => {
    if (isGroup) io.to('chat').emit('m', text)
    else socket.emit('m', text)
  })
})
serve(server)
