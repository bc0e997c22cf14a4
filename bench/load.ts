import type { Socket } from 'node:net'
import { WebSocket } from 'ws'

/** How a client of one kind of server speaks: the rivals' own framing inside the socket's text. */
export interface Dialect {
  readonly url: (port: number, isGroup: boolean) => string
  /** Resolves when messages may be sent. */
  readonly ready: (socket: WebSocket) => Promise<void>
  readonly encode: (text: string) => string
  /** Whether a frame is a message, not protocol. */
  readonly isMessage: (frame: Buffer) => boolean
}

const opened = (socket: WebSocket): Promise<void> =>
  new Promise((resolve, reject) => {
    socket.once('open', () => resolve())
    socket.once('error', reject)
  })

export const plain: Dialect = {
  url: (port, isGroup) => `ws://127.0.0.1:${port}/${isGroup ? 'group' : 'echo'}`,
  ready: opened,
  encode: (text) => text,
  isMessage: () => true,
}

export const socketIo: Dialect = {
  url: (port, isGroup) =>
    `ws://127.0.0.1:${port}/socket.io/?EIO=4&transport=websocket&group=${isGroup ? 1 : 0}`,
  ready: async (socket) => {
    await opened(socket)
    socket.send('40')
    await new Promise<void>((resolve) => {
      socket.on('message', (data) => {
        const text = String(data)
        if (text === '2') socket.send('3')
        if (text.startsWith('40')) resolve()
      })
    })
  },
  encode: (text) => `42["m",${JSON.stringify(text)}]`,
  isMessage: (frame) => frame[0] === 0x34 && frame[1] === 0x32,
}

/**
 * Sends through one write per socket and turn, so that the load costs little and the server, not
 * the load, is what is measured.
 */
function sendCoalesced(socket: WebSocket & { _socket?: Socket }, frame: string): void {
  const wire = socket._socket
  if (wire && !corked.has(wire)) {
    corked.add(wire)
    wire.cork()
    setImmediate(() => {
      corked.delete(wire)
      wire.uncork()
    })
  }
  socket.send(frame)
}

const corked = new Set<Socket>()

/** Opens sockets, a hundred at a time. */
export async function openSockets(
  dialect: Dialect,
  port: number,
  count: number,
  isGroup = false,
): Promise<WebSocket[]> {
  const sockets: WebSocket[] = []
  while (sockets.length < count) {
    const batch = Array.from({ length: Math.min(100, count - sockets.length) }, () => {
      return new WebSocket(dialect.url(port, isGroup), { perMessageDeflate: false })
    })
    await Promise.all(batch.map((socket) => dialect.ready(socket)))
    sockets.push(...batch)
  }
  return sockets
}

export function closeSockets(sockets: readonly WebSocket[]): void {
  for (const socket of sockets) socket.terminate()
}

const padding = 'x'.repeat(50)

/**
 * Keeps `inFlight` messages under way on every socket for `durationMs`.
 *
 * @returns how many came back, and how long each took in milliseconds.
 */
export async function echoLoad(
  dialect: Dialect,
  sockets: readonly WebSocket[],
  inFlight: number,
  durationMs: number,
): Promise<{ messages: number; latenciesMs: number[] }> {
  let messages = 0
  let underWay = 0
  let isOver = false
  const latenciesMs: number[] = []
  const frame = dialect.encode(padding)
  for (const socket of sockets) {
    const sentAt: number[] = []
    const send = (): void => {
      underWay++
      sentAt.push(performance.now())
      sendCoalesced(socket, frame)
    }
    socket.on('message', (data: Buffer) => {
      if (!dialect.isMessage(data)) return
      messages++
      underWay--
      latenciesMs.push(performance.now() - (sentAt.shift() ?? 0))
      if (!isOver) send()
    })
    for (let index = 0; index < inFlight; index++) send()
  }
  await new Promise((resolve) => setTimeout(resolve, durationMs))
  isOver = true
  const counted = messages
  // What is under way must not be taken for an answer to the next load.
  while (underWay > 0) await new Promise((resolve) => setTimeout(resolve, 50))
  for (const socket of sockets) socket.removeAllListeners('message')
  return { messages: counted, latenciesMs: latenciesMs.slice(0, counted) }
}

/**
 * Keeps `inFlight` numbered messages under way on every socket for `durationMs`.
 *
 * @returns how many came back, and how many of them behind one that was sent later.
 */
export async function numberedLoad(
  sockets: readonly WebSocket[],
  inFlight: number,
  durationMs: number,
): Promise<{ messages: number; disordered: number }> {
  let messages = 0
  let disordered = 0
  let underWay = 0
  let isOver = false
  for (const socket of sockets) {
    let sent = 0
    let last = 0
    const send = (): void => {
      sent++
      underWay++
      sendCoalesced(socket, String(sent))
    }
    socket.on('message', (data: Buffer) => {
      const n = Number(data)
      messages++
      underWay--
      if (n < last) disordered++
      last = Math.max(last, n)
      if (!isOver) send()
    })
    for (let index = 0; index < inFlight; index++) send()
  }
  await new Promise((resolve) => setTimeout(resolve, durationMs))
  isOver = true
  const counted = { messages, disordered }
  // What is under way must not be taken for an answer to the next load.
  while (underWay > 0) await new Promise((resolve) => setTimeout(resolve, 50))
  for (const socket of sockets) socket.removeAllListeners('message')
  return counted
}

/**
 * Has one member send to the group, `inFlight` messages at a time, the next round when every member
 * has got the last.
 */
export async function groupLoad(
  dialect: Dialect,
  sockets: readonly WebSocket[],
  inFlight: number,
  durationMs: number,
): Promise<{ deliveries: number; roundsMs: number[] }> {
  let deliveries = 0
  let onRound: (() => void) | undefined
  let expected = 0
  for (const socket of sockets) {
    socket.on('message', (data: Buffer) => {
      if (!dialect.isMessage(data)) return
      deliveries++
      if (deliveries === expected) onRound?.()
    })
  }
  const frame = dialect.encode(padding)
  const roundsMs: number[] = []
  const until = performance.now() + durationMs
  while (performance.now() < until) {
    expected = deliveries + inFlight * sockets.length
    const start = performance.now()
    await new Promise<void>((resolve) => {
      onRound = resolve
      for (let index = 0; index < inFlight; index++) sockets[0]?.send(frame)
    })
    roundsMs.push(performance.now() - start)
  }
  for (const socket of sockets) socket.removeAllListeners('message')
  return { deliveries, roundsMs }
}

/** The value below which `share` of the sorted `values` lie. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
}

export function median(values: readonly number[]): number {
  return percentile(values, 0.5)
}
