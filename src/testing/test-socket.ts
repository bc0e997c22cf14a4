import type { IncomingMessage } from 'node:http'
import { WebSocket } from 'ws'
import { shown } from '../errors.ts'

/** How a socket ended, RFC 6455 section 7.4; 1006 when it was cut. */
export interface TestSocketEnd {
  readonly code: number
  readonly reason: string
}

/** What a socket needs of its site. */
export interface TestSocketSite {
  /** Lets everything run until `isDone`, or until nothing moves; false when it stays busy. */
  settle(isDone?: () => boolean): Promise<boolean>
  /** Counts what arrives, so that the site knows that something still moves. */
  noteArrival(): void
  /** An error that says what did not happen and what the site is doing instead. */
  failure(message: string): Error
}

/**
 * A browser's WebSocket, without a browser: made by `TestSite.connect`.
 *
 * @example
 * ```ts
 * const socket = await site.connect('/kitchen')
 * socket.send('hello')
 * expect(await socket.next()).toBe('hello')
 * ```
 */
export class TestSocket {
  /** The path and query it was opened with. */
  readonly path: string
  readonly #site: TestSocketSite
  readonly #socket: WebSocket
  readonly #arrived: (string | Uint8Array)[] = []
  #accepted = false
  #status: number | undefined
  #end: TestSocketEnd | undefined

  /** @param socket - a client's socket of the library, still connecting. */
  constructor(site: TestSocketSite, socket: WebSocket, path: string) {
    this.path = path
    this.#site = site
    this.#socket = socket
    socket.on('open', () => {
      this.#accepted = true
      site.noteArrival()
    })
    socket.on('message', (data: Buffer, isBinary: boolean) => {
      this.#arrived.push(isBinary ? new Uint8Array(data) : data.toString())
      site.noteArrival()
    })
    socket.on('unexpected-response', (_request, response: IncomingMessage) => {
      this.#status = response.statusCode
      response.destroy()
      site.noteArrival()
    })
    // A cut connection is told by its close code.
    socket.on('error', () => {})
    socket.on('close', (code: number, reason: Buffer) => {
      if (this.#accepted) this.#end = { code, reason: reason.toString() }
      site.noteArrival()
    })
  }

  /** Whether the handshake was completed. */
  get accepted(): boolean {
    return this.#accepted
  }

  /** The HTTP status by which the handshake was refused. */
  get refusedStatus(): number | undefined {
    return this.#status
  }

  /** The one of the offered subprotocols that the server chose. */
  get subprotocol(): string | undefined {
    return this.#socket.protocol || undefined
  }

  /** How the socket ended; undefined while it is open. */
  get closed(): TestSocketEnd | undefined {
    return this.#end
  }

  /** Sends one message: a string as text, bytes as binary. */
  send(content: string | Uint8Array): void {
    this.#checkAccepted()
    if (this.#end || this.#socket.readyState !== WebSocket.OPEN) {
      throw this.#site.failure(`socket ${this.path} is closed and cannot send`)
    }
    this.#socket.send(content)
  }

  /**
   * The next message from the server: a string when it came as text, bytes when as binary.
   *
   * @throws when nothing comes although nothing is left to run.
   */
  async next(): Promise<string | Uint8Array> {
    this.#checkAccepted()
    if (this.#arrived.length === 0) {
      await this.#site.settle(() => this.#arrived.length > 0 || this.#end !== undefined)
    }
    const message = this.#arrived.shift()
    if (message !== undefined) return message
    throw this.#site.failure(
      this.#end
        ? `no message came on socket ${this.path} before it was closed with ${described(this.#end)}`
        : `no message came on socket ${this.path}`,
    )
  }

  /** Lets everything run. @throws when a message came that `next` has not taken. */
  async expectNothing(): Promise<void> {
    await this.#site.settle()
    const [first] = this.#arrived
    if (first === undefined) return
    const shownFirst = typeof first === 'string' ? shown(first) : `${first.byteLength} bytes`
    throw this.#site.failure(
      `${this.#arrived.length} unexpected message(s) on socket ${this.path}, the first ${shownFirst}`,
    )
  }

  /** Waits for the server to close the socket. @throws when it stays open. */
  async expectClosed(): Promise<TestSocketEnd> {
    this.#checkAccepted()
    await this.#site.settle(() => this.#end !== undefined)
    if (this.#end) return this.#end
    throw this.#site.failure(`socket ${this.path} stays open`)
  }

  /** Closes the socket as a browser does, and waits until the site has taken note. */
  async close(code?: number, reason?: string): Promise<void> {
    this.#socket.close(code, reason)
    await this.#site.settle()
  }

  /** Cuts the connection, as a client does that loses its network. */
  async cut(): Promise<void> {
    this.#socket.terminate()
    await this.#site.settle()
  }

  /** Reads nothing from here on: a slow reader. */
  pause(): void {
    this.#socket.pause()
  }

  /** Reads on after {@link pause}. */
  resume(): void {
    this.#socket.resume()
  }

  #checkAccepted(): void {
    if (this.#accepted) return
    throw this.#site.failure(
      this.#status === undefined
        ? `the handshake of socket ${this.path} is not complete`
        : `the handshake of socket ${this.path} was refused with ${this.#status}`,
    )
  }
}

function described({ code, reason }: TestSocketEnd): string {
  return reason === '' ? String(code) : `${code} ${shown(reason)}`
}
