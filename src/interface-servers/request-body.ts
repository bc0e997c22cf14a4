import type { IncomingMessage } from 'node:http'
import { ChannelkitError } from '../errors.ts'
import type { BodyPart } from '../http/client-link.ts'
import type { Clock } from '../internal/clock.ts'

/** Whether a request has a body to be read. */
export function hasBody({ headers }: IncomingMessage): boolean {
  return (
    headers['transfer-encoding'] !== undefined ||
    (headers['content-length'] !== undefined && Number(headers['content-length']) > 0)
  )
}

/**
 * Reads a request's body part by part. Between the parts the client's socket is paused, so that no
 * more than one part is held.
 */
export class RequestBody {
  readonly #request: IncomingMessage
  readonly #clock: Clock
  readonly #maxBytes: number
  readonly #partBytes: number
  #chunks: Buffer[] = []
  /** Of `#chunks`. */
  #size = 0
  #totalBytes = 0
  #isEnded = false
  #error: Error | undefined
  #settle: (() => void) | undefined
  #askedAt: number | undefined

  /**
   * @throws {ChannelkitError} `ERR_REQUEST_TOO_LARGE` when the client says that it is over
   *   `maxBytes`.
   */
  constructor(
    request: IncomingMessage,
    options: { readonly clock: Clock; readonly maxBytes: number; readonly partBytes: number },
  ) {
    this.#request = request
    this.#clock = options.clock
    this.#maxBytes = options.maxBytes
    this.#partBytes = options.partBytes
    checkBodyLength(request, options.maxBytes)
    request.on('data', (chunk: Buffer) => this.#take(chunk))
    request.pause()
    request.once('end', () => this.#end())
    request.once('error', (error) => this.#fail(error))
    request.once('close', () => this.#fail(new Error('the client left while sending its request')))
  }

  /** Since when a part has been waited for, in milliseconds of the clock; undefined when none is. */
  get waitingSince(): number | undefined {
    return this.#askedAt
  }

  get isComplete(): boolean {
    return this.#isEnded && this.#size === 0
  }

  /**
   * Reads the next part; the last may be empty.
   *
   * @throws {ChannelkitError} `ERR_REQUEST_TOO_LARGE` as soon as that is known.
   */
  async next(): Promise<BodyPart> {
    if (!this.#hasPart) {
      this.#askedAt = this.#clock.now()
      await new Promise<void>((resolve) => {
        this.#settle = resolve
        this.#request.resume()
      })
      this.#askedAt = undefined
    }
    if (this.#error) throw this.#error
    const all =
      this.#chunks.length === 1 ? this.#chunks[0] : Buffer.concat(this.#chunks, this.#size)
    const bytes = plainBytes((all as Buffer).subarray(0, this.#partBytes))
    const rest = (all as Buffer).subarray(this.#partBytes)
    this.#chunks = rest.length > 0 ? [rest] : []
    this.#size = rest.length
    return { bytes: bytes.byteLength > 0 ? bytes : undefined, isLast: this.isComplete }
  }

  /** Throws away what the client still sends. */
  discard(): void {
    this.#error ??= new Error('the rest of the body is not wanted')
    this.#chunks = []
    this.#request.resume()
  }

  /** Whole and not the last: more than a part is there, or it is known that nothing follows. */
  get #hasPart(): boolean {
    return this.#error !== undefined || this.#isEnded || this.#size > this.#partBytes
  }

  #take(chunk: Buffer): void {
    if (this.#error) return
    this.#totalBytes += chunk.length
    if (this.#totalBytes > this.#maxBytes) {
      this.#fail(tooLarge(this.#maxBytes))
      return
    }
    this.#chunks.push(chunk)
    this.#size += chunk.length
    if (this.#size > this.#partBytes) this.#wake()
  }

  #end(): void {
    this.#isEnded = true
    this.#wake()
  }

  #fail(error: Error): void {
    if (this.#isEnded) return
    this.#error ??= error
    this.#wake()
  }

  #wake(): void {
    this.#request.pause()
    this.#settle?.()
    this.#settle = undefined
  }
}

/** @throws {ChannelkitError} `ERR_REQUEST_TOO_LARGE` */
export function checkBodyLength(request: IncomingMessage, maxBytes: number): void {
  if (Number(request.headers['content-length'] ?? 0) > maxBytes) throw tooLarge(maxBytes)
}

/** The same bytes without Node's own methods, as consumers get them from every backend. */
function plainBytes({ buffer, byteOffset, byteLength }: Buffer): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength)
}

function tooLarge(maxBytes: number): ChannelkitError {
  return new ChannelkitError('ERR_REQUEST_TOO_LARGE', `the body is over ${maxBytes} bytes`)
}
