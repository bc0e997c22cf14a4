import type { IncomingMessage } from 'node:http'
import { ChannelkitError } from '../errors.ts'

/**
 * Reads a request's body to its end.
 *
 * @param maxBytes - a longer body is refused as soon as that is known, without reading it.
 * @returns undefined when there is none.
 * @throws {ChannelkitError} `ERR_REQUEST_TOO_LARGE`
 */
export function readBody(request: IncomingMessage, maxBytes: number): Promise<Buffer | undefined> {
  const length = Number(request.headers['content-length'] ?? 0)
  if (length > maxBytes) return Promise.reject(tooLarge(maxBytes))
  if (length === 0 && request.headers['transfer-encoding'] === undefined) {
    return Promise.resolve(undefined)
  }
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    let size = 0
    request.on('data', (chunk: Buffer) => {
      size += chunk.length
      if (size > maxBytes) {
        request.pause()
        reject(tooLarge(maxBytes))
      } else {
        chunks.push(chunk)
      }
    })
    request.on('end', () => resolve(size === 0 ? undefined : Buffer.concat(chunks, size)))
    request.on('error', reject)
    request.on('close', () => reject(new Error('the client left while sending its request')))
  })
}

function tooLarge(maxBytes: number): ChannelkitError {
  return new ChannelkitError('ERR_REQUEST_TOO_LARGE', `the body is over ${maxBytes} bytes`)
}
