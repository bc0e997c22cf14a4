import type { HttpResponse } from '../message-formats.ts'
import type { ViewRequest } from './view-request.ts'

// Beyond this much unsent, `write` says to wait for `drain`: one whole part, since each costs a
// message.
const highWaterBytes = 262_144

/**
 * Sends what a Node handler writes. Everything written in one turn, or while the client has no
 * room, goes in one part.
 */
export class NodeAnswer {
  readonly #view: ViewRequest
  /** The head, until it is sent. */
  #head: HttpResponse | undefined
  #chunks: Uint8Array[] = []
  #size = 0
  /** Callbacks of the writes in `#chunks`. */
  #callbacks: (() => void)[] = []
  #mustFlush = false
  #isEnded = false
  #sending: Promise<void> | undefined
  /** Called when there is room again after `write` has returned false. */
  onDrain: (() => void) | undefined
  #needsDrain = false

  constructor(view: ViewRequest) {
    this.#view = view
  }

  begin(head: HttpResponse): void {
    this.#head = head
  }

  /** Sends the head without waiting for a body. */
  flush(): void {
    this.#mustFlush = true
    this.#send()
  }

  /** @returns false when the writer is to wait for `onDrain`. */
  write(chunk: Uint8Array, callback: (() => void) | undefined): boolean {
    this.#mustFlush = true
    // The handler may use its buffer again as soon as it is called back.
    this.#chunks.push(new Uint8Array(chunk))
    this.#size += chunk.byteLength
    if (callback) this.#callbacks.push(callback)
    this.#send()
    if (this.#size >= highWaterBytes) this.#needsDrain = true
    return !this.#needsDrain
  }

  /** Ends the answer; `sent` settles when all of it has gone. */
  end(chunk: Uint8Array | undefined): void {
    const { link, partBytes } = this.#view
    if (!this.#mustFlush && !this.#sending && (chunk?.byteLength ?? 0) <= partBytes) {
      const content = { ...this.#takeHead(), ...(chunk && { content: chunk }) }
      this.#isEnded = true
      this.#sending = link.send(content)
      this.#sending.catch(() => {})
      return
    }
    if (chunk && chunk.byteLength > 0) {
      this.#chunks.push(chunk)
      this.#size += chunk.byteLength
    }
    this.#isEnded = true
    this.#send()
  }

  /** Settles when everything written so far is sent; rejects when the client has left. */
  get sent(): Promise<void> {
    return this.#sending ?? Promise.resolve()
  }

  #send(): void {
    this.#sending ??= this.#run().finally(() => {
      this.#sending = undefined
    })
    this.#sending.catch(() => {})
  }

  async #run(): Promise<void> {
    const { link, partBytes } = this.#view
    // Whatever else is written in this turn goes along.
    if (!this.#isEnded) await Promise.resolve()
    for (;;) {
      const isWhole = this.#isEnded && this.#size <= partBytes
      // With a length, or in one piece, it needs no chunks; else it is sent as it was written.
      if (isWhole && (!this.#head || !this.#mustFlush || hasLength(this.#head))) {
        const content = this.#takeUpTo(partBytes)
        const head = this.#takeHead()
        await link.send(content ? { ...head, content } : { ...head })
        this.#called()
        return
      }
      if (this.#size === 0 && !(this.#mustFlush && this.#head)) return
      const callbacks = this.#size <= partBytes ? this.#callbacks.splice(0) : []
      const content = this.#takeUpTo(partBytes)
      const head = this.#takeHead()
      await link.sendPart({ ...head, ...(content && { content }), more_content: true })
      this.#view.streams()
      for (const callback of callbacks) callback()
      if (this.#needsDrain && this.#size < highWaterBytes) {
        this.#needsDrain = false
        this.onDrain?.()
      }
    }
  }

  #called(): void {
    for (const callback of this.#callbacks.splice(0)) callback()
  }

  #takeHead(): HttpResponse | undefined {
    const head = this.#head
    this.#head = undefined
    this.#view.hasBegun = true
    return head
  }

  #takeUpTo(bytes: number): Uint8Array | undefined {
    if (this.#size === 0) return undefined
    const all = this.#chunks.length === 1 ? this.#chunks[0] : Buffer.concat(this.#chunks)
    const taken = (all as Uint8Array).subarray(0, bytes)
    const rest = (all as Uint8Array).subarray(bytes)
    this.#chunks = rest.byteLength > 0 ? [rest] : []
    this.#size = rest.byteLength
    return taken
  }
}

function hasLength({ headers = [] }: HttpResponse): boolean {
  return headers.some(([name]) => name.toLowerCase() === 'content-length')
}
