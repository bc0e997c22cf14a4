// The plain ws server a rival would be built on: echoes, and loops over a set for a group send.
import { createServer } from 'node:http'
import { type WebSocket, WebSocketServer } from 'ws'
import { serve } from './serve.ts'

const server = createServer()
const sockets = new WebSocketServer({ server })
const members = new Set<WebSocket>()
sockets.on('connection', (socket, request) => {
  const isGroup = request.url === '/group'
  if (isGroup) members.add(socket)
  socket.on('message', (data) => {
    const text = String(data)
    if (isGroup) for (const member of members) member.send(text)
    else socket.send(text)
  })
  socket.on('close', () => members.delete(socket))
})
serve(server)
