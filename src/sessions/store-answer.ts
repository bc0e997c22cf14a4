import { ChannelkitError, isChannelkitError } from '../errors.ts'
import type { Clock } from '../internal/clock.ts'

export interface AnswerOptions {
  /** What is called, as errors name it. */
  readonly call: string
  /** The session's key, by which whoever reads it could sign in. */
  readonly key: string
  /** How long it may take, in milliseconds. */
  readonly timeoutMs: number
  readonly clock: Clock
}

/**
 * What a call to where sessions are kept came to; neither endless, nor with the session's key in its
 * error.
 *
 * @throws {ChannelkitError} `ERR_SESSION_STORE`; a `ChannelkitError` is passed on as it is.
 */
export function answerInTime<T>(answer: Promise<T>, options: AnswerOptions): Promise<T> {
  const { call, key, timeoutMs, clock } = options
  return new Promise((resolve, reject) => {
    const cancel = clock.schedule(() => {
      const text = `${call} has not answered for ${timeoutMs} ms; see to the store, or raise session.storeTimeoutMs`
      reject(new ChannelkitError('ERR_SESSION_STORE', text))
    }, timeoutMs)
    answer.then(resolve, (error) => reject(storeError(call, key, error))).finally(cancel)
  })
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
