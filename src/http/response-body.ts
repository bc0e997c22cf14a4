import { shown } from '../errors.ts'

/**
 * The bytes of one chunk of a `Response`'s body; strings, as some frameworks enqueue, are UTF-8.
 *
 * @throws {TypeError} for anything else.
 */
export function bodyBytes(chunk: unknown): Uint8Array {
  if (chunk instanceof Uint8Array) return chunk
  if (typeof chunk === 'string') return Buffer.from(chunk)
  if (chunk instanceof ArrayBuffer) return new Uint8Array(chunk)
  throw new TypeError(`the body of a Response gave ${shown(chunk)}; enqueue bytes or strings`)
}

/** What `read` gives within a turn of the event loop, as a body that is there already does. */
export async function soon<T>(read: Promise<T>): Promise<T | undefined> {
  let result: T | undefined
  let isSettled = false
  const settle = (): void => {
    isSettled = true
  }
  read.then((value) => {
    result = value
    settle()
  }, settle)
  // That takes some microtasks, which cost less than a turn.
  for (let step = 0; step < 8 && !isSettled; step++) await undefined
  if (!isSettled) await new Promise(setImmediate)
  return result
}
