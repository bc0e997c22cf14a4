// A load generator in a process of its own: keeps connections busy, or asks at a fixed rate.
import { connect, type Socket } from 'node:net'

export interface LoadRequest {
  readonly port: number
  readonly connections: number
  readonly durationMs: number
  /** Requests per second over all connections; as many as go when left out. */
  readonly rate?: number
}

export interface LoadResult {
  readonly requests: number
  readonly perSecond: number
  readonly p50Ms: number
  readonly p99Ms: number
}

const question = 'GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\nUser-Agent: bench\r\n\r\n'

class Connection {
  readonly #socket: Socket
  #received = ''
  #askedAt = 0
  onAnswer: (latencyMs: number) => void = () => {}

  constructor(port: number) {
    this.#socket = connect({ port, host: '127.0.0.1' })
    this.#socket.setNoDelay(true)
    this.#socket.setEncoding('latin1')
    this.#socket.on('data', (chunk: string) => {
      this.#received += chunk
      const end = this.#received.indexOf('Hello world!')
      if (end === -1) return
      // A chunked answer has an end of its own behind the text.
      if (this.#received.includes('chunked') && !this.#received.endsWith('0\r\n\r\n')) return
      if (!this.#received.startsWith('HTTP/1.1 200')) throw new Error(this.#received)
      this.#received = ''
      this.onAnswer(performance.now() - this.#askedAt)
    })
  }

  /** @param dueAt - when it should have been sent, so that waiting for a connection counts. */
  ask(dueAt = performance.now()): void {
    this.#askedAt = dueAt
    this.#socket.write(question)
  }

  close(): void {
    this.#socket.destroy()
  }
}

async function load({ port, connections, durationMs, rate }: LoadRequest): Promise<LoadResult> {
  const all = Array.from({ length: connections }, () => new Connection(port))
  const latenciesMs: number[] = []
  const idle: Connection[] = []
  const due: number[] = []
  let isOver = false
  for (const connection of all) {
    connection.onAnswer = (latencyMs) => {
      latenciesMs.push(latencyMs)
      if (isOver) return
      if (rate === undefined) connection.ask()
      else if (due.length > 0) connection.ask(due.shift())
      else idle.push(connection)
    }
    if (rate === undefined) connection.ask()
    else idle.push(connection)
  }
  const start = performance.now()
  let asked = 0
  const timer = setInterval(() => {
    if (rate === undefined) return
    const now = performance.now()
    for (; asked < ((now - start) / 1_000) * rate; asked++) {
      const connection = idle.pop()
      const dueAt = start + (asked / rate) * 1_000
      if (connection) connection.ask(now)
      else due.push(dueAt)
    }
  }, 1)
  await new Promise((resolve) => setTimeout(resolve, durationMs))
  isOver = true
  clearInterval(timer)
  const requests = latenciesMs.length
  const sorted = latenciesMs.toSorted((a, b) => a - b)
  const at = (share: number): number => sorted[Math.floor(sorted.length * share)] ?? Number.NaN
  await new Promise((resolve) => setTimeout(resolve, 100))
  for (const connection of all) connection.close()
  return {
    requests,
    perSecond: requests / (durationMs / 1_000),
    p50Ms: at(0.5),
    p99Ms: at(0.99),
  }
}

process.on('message', (request: LoadRequest) => {
  void load(request).then((result) => process.send?.(result))
})
process.on('disconnect', () => process.exit(0))
