import { ChannelkitError, isChannelkitError } from '../errors.ts'
import type { Clock } from '../internal/clock.ts'

export interface StoreAnswersOptions {
  /** How long a call may take, in milliseconds. */
  readonly timeoutMs: number
  readonly clock: Clock
}

/** A call that is not answered yet. */
interface OpenCall {
  readonly name: string
  readonly endsAt: number
  readonly reject: (error: unknown) => void
}

/**
 * Waits for what is called where sessions are kept; not without end, and keeps the sessions' keys out
 * of errors.
 */
export class StoreAnswers {
  readonly #timeoutMs: number
  readonly #clock: Clock
  /** The oldest first, which is the one that ends first. */
  readonly #open = new Set<OpenCall>()
  #isTiming = false

  constructor({ timeoutMs, clock }: StoreAnswersOptions) {
    this.#timeoutMs = timeoutMs
    this.#clock = clock
  }

  /**
   * What a call comes to.
   *
   * @param name - what is called, as errors name it.
   * @param key - the session's, by which whoever reads it could sign in.
   * @throws {ChannelkitError} `ERR_SESSION_STORE`; a `ChannelkitError` is passed on as it is.
   */
  of<T>(name: string, key: string, answer: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const call = { name, endsAt: this.#clock.elapsed() + this.#timeoutMs, reject }
      this.#open.add(call)
      if (!this.#isTiming) this.#time(this.#timeoutMs)
      answer.then(
        (value) => {
          this.#open.delete(call)
          resolve(value)
        },
        (error) => {
          this.#open.delete(call)
          reject(storeError(name, key, error))
        },
      )
    })
  }

  /** One timer for all calls, since there are two or more for each message. */
  #time(delayMs: number): void {
    this.#isTiming = true
    this.#clock.schedule(() => {
      this.#isTiming = false
      const now = this.#clock.elapsed()
      for (const call of this.#open) {
        if (call.endsAt > now) return this.#time(call.endsAt - now)
        this.#open.delete(call)
        const text = `${call.name} has not answered for ${this.#timeoutMs} ms; see to the store, or raise session.storeTimeoutMs`
        call.reject(new ChannelkitError('ERR_SESSION_STORE', text))
      }
    }, delayMs)
  }
}

/** An error of a store without the key, by which whoever reads the log could sign in. */
function storeError(call: string, key: string, error: unknown): ChannelkitError {
  if (isChannelkitError(error)) return error
  if (error instanceof SyntaxError) {
    const text = `${call} has found a session that is no JSON; end it, or see what writes to the store`
    return new ChannelkitError('ERR_SESSION_STORE', text)
  }
  const withoutKey = (text: string): string =>
    text.replaceAll(key, '\u2026').replaceAll(encodeURIComponent(key), '\u2026')
  const { message, stack } = error instanceof Error ? error : { message: String(error), stack: '' }
  // Not the error itself: drivers put their commands and paths on it.
  const cause = new Error(withoutKey(message))
  cause.stack = withoutKey(stack ?? '')
  const text = `${call} failed: ${withoutKey(message)}; see to the store`
  return new ChannelkitError('ERR_SESSION_STORE', text, { cause })
}
