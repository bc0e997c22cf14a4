import { connect, type Socket } from 'node:net'

/** One answer as it stood on the wire, parsed by nobody's library. */
export interface RawAnswer {
  readonly status: number
  readonly reason: string
  /** In the order received, names as they came. */
  readonly headers: readonly (readonly [name: string, value: string])[]
  readonly body: Buffer
}

/** A client that sends exactly the bytes it is given. */
export class RawClient {
  readonly socket: Socket
  #chunks: Buffer[] = []
  #isEnded = false
  #onData: (() => void) | undefined

  private constructor(socket: Socket) {
    this.socket = socket
    socket.on('data', (chunk) => {
      this.#chunks.push(chunk)
      this.#onData?.()
    })
    socket.on('error', () => {})
    socket.on('close', () => {
      this.#isEnded = true
      this.#onData?.()
    })
  }

  static async connect(port: number, host = '127.0.0.1'): Promise<RawClient> {
    const socket = connect({ port, host })
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve)
      socket.once('error', reject)
    })
    return new RawClient(socket)
  }

  write(text: string | Uint8Array): void {
    this.socket.write(text)
  }

  /** Whether the server has closed the connection. */
  get isEnded(): boolean {
    return this.#isEnded
  }

  /** What was received and not yet taken, joined when it is looked at. */
  get #received(): Buffer {
    const [only] = this.#chunks
    if (this.#chunks.length === 1 && only) return only
    const all = Buffer.concat(this.#chunks)
    this.#chunks = [all]
    return all
  }

  set #received(left: Buffer) {
    this.#chunks = [left]
  }

  /** Waits until what was received has `text`, and gives it. */
  async until(text: string): Promise<string> {
    while (!this.#received.includes(text)) {
      if (this.#isEnded) throw new Error(`the connection ended with ${this.#received.toString()}`)
      await this.#more()
    }
    return this.#received.toString('latin1')
  }

  /** Waits until the server closes the connection, and gives all that was received. */
  async ended(): Promise<string> {
    while (!this.#isEnded) await this.#more()
    return this.#received.toString('latin1')
  }

  /** Reads one whole answer and leaves what follows it. */
  async answer(method = 'GET'): Promise<RawAnswer> {
    await this.until('\r\n\r\n')
    const end = this.#received.indexOf('\r\n\r\n')
    const [line = '', ...lines] = this.#received.subarray(0, end).toString('latin1').split('\r\n')
    const [, code, reason = ''] = /^HTTP\/1\.1 (\d{3}) ?(.*)$/.exec(line) ?? []
    const headers = lines.map((each): [string, string] => {
      const mark = each.indexOf(':')
      return [each.slice(0, mark), each.slice(mark + 1).trim()]
    })
    const status = Number(code)
    this.#received = this.#received.subarray(end + 4)
    const isBodiless = method === 'HEAD' || status < 200 || status === 204 || status === 304
    const body = isBodiless ? Buffer.alloc(0) : await this.#body(headers)
    return { status, reason, headers, body }
  }

  close(): void {
    this.socket.destroy()
  }

  async #body(headers: RawAnswer['headers']): Promise<Buffer> {
    const length = lastHeader(headers, 'content-length')
    if (length !== undefined) return this.#take(Number(length))
    if (lastHeader(headers, 'transfer-encoding') !== 'chunked') {
      await this.ended()
      return this.#take(this.#received.length)
    }
    const parts: Buffer[] = []
    for (;;) {
      const line = await this.#line()
      const size = Number.parseInt(line, 16)
      const part = await this.#take(size)
      await this.#take(2)
      if (size === 0) return Buffer.concat(parts)
      parts.push(part)
    }
  }

  async #line(): Promise<string> {
    while (!this.#received.includes('\r\n')) await this.#more()
    const end = this.#received.indexOf('\r\n')
    const line = this.#received.subarray(0, end).toString('latin1')
    this.#received = this.#received.subarray(end + 2)
    return line
  }

  async #take(size: number): Promise<Buffer> {
    while (this.#received.length < size) {
      if (this.#isEnded) throw new Error('the connection ended within a body')
      await this.#more()
    }
    const taken = this.#received.subarray(0, size)
    this.#received = this.#received.subarray(size)
    return taken
  }

  async #more(): Promise<void> {
    if (this.#isEnded) return
    await new Promise<void>((resolve) => {
      this.#onData = resolve
    })
    this.#onData = undefined
  }
}

/** The last value of a header. */
export function lastHeader(headers: RawAnswer['headers'], name: string): string | undefined {
  return headers.findLast(([each]) => each.toLowerCase() === name)?.[1]
}
