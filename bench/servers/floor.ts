// The floor: the bare way of a message through Redis lists, batched on every leg, with no promise kept
// at all. node --import tsx floor.ts interface|worker <Redis URL> [own name]
import { createServer } from 'node:http'
import type { Socket } from 'node:net'
import { createClient } from 'redis'
import { type WebSocket, WebSocketServer } from 'ws'
import { serve } from './serve.ts'

const [role, url = '', name = ''] = process.argv.slice(2)
const options = { url, commandOptions: { timeout: 0 } }
const writer = createClient(options)
const reader = createClient(options)
await Promise.all([writer.connect(), reader.connect()])

/** Which server, which of its sockets (0 for the whole group), what. */
type Entry = readonly [server: string, socket: number, text: string]

/** Joins what one turn has for a list into one command. */
class Outbox {
  readonly #lists = new Map<string, string[]>()

  push(list: string, entry: Entry): void {
    if (this.#lists.size === 0) setImmediate(() => this.#flush())
    const waiting = this.#lists.get(list)
    if (waiting) waiting.push(JSON.stringify(entry))
    else this.#lists.set(list, [JSON.stringify(entry)])
  }

  #flush(): void {
    for (const [list, entries] of this.#lists) void writer.rPush(list, entries)
    this.#lists.clear()
  }
}

async function readAll(list: string, take: (entry: Entry) => void): Promise<void> {
  for (;;) {
    const first = await reader.blPop(list, 0)
    if (first) take(JSON.parse(first.element))
    for (;;) {
      const rest = await reader.lPopCount(list, 500)
      if (!rest || rest.length === 0) break
      for (const each of rest) take(JSON.parse(each))
    }
  }
}

const outbox = new Outbox()
const server = createServer()
if (role === 'worker') {
  void readAll('floor:work', ([from, socket, text]) => {
    if (socket > 0) outbox.push(`floor:${from}`, [from, socket, text])
    else for (const each of ['a', 'b']) outbox.push(`floor:${each}`, [each, 0, text])
  })
} else {
  const sockets = new Map<number, WebSocket & { _socket?: Socket }>()
  const members = new Set<WebSocket & { _socket?: Socket }>()
  const corked = new Set<Socket>()
  let last = 0
  const write = (socket: WebSocket & { _socket?: Socket }, frame: string | Buffer): void => {
    const wire = socket._socket
    if (wire && !corked.has(wire)) {
      if (corked.size === 0) {
        setImmediate(() => {
          for (const each of corked) each.uncork()
          corked.clear()
        })
      }
      corked.add(wire)
      wire.cork()
    }
    socket.send(frame, { binary: false })
  }
  new WebSocketServer({ server, perMessageDeflate: false }).on('connection', (socket, request) => {
    const isGroup = request.url === '/group'
    const id = ++last
    sockets.set(id, socket)
    if (isGroup) members.add(socket)
    socket.on('message', (data) => {
      outbox.push('floor:work', [name, isGroup ? 0 : id, String(data)])
    })
    socket.on('close', () => {
      sockets.delete(id)
      members.delete(socket)
    })
  })
  void readAll(`floor:${name}`, ([, id, text]) => {
    const frame = Buffer.from(text)
    if (id === 0) for (const socket of members) write(socket, frame)
    else {
      const socket = sockets.get(id)
      if (socket) write(socket, frame)
    }
  })
}
serve(server)
