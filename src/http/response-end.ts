import { ServerResponse } from 'node:http'

// Beyond this, making a string costs more than the second write.
const joinedBytes = 16_384

// A view that was lent the response has put methods of its own on it.
const end = ServerResponse.prototype.end as (
  this: ServerResponse,
  chunk?: string | Uint8Array,
  encoding?: BufferEncoding,
) => ServerResponse

/**
 * Ends a response of which nothing was written with its whole body: Node writes a head and a string
 * in one go, but a head and bytes in two.
 */
export function endWith(response: ServerResponse, body: Uint8Array | undefined): void {
  if (!body || body.byteLength > joinedBytes) {
    end.call(response, body)
    return
  }
  const { buffer, byteOffset, byteLength } = body
  end.call(response, Buffer.from(buffer, byteOffset, byteLength).toString('latin1'), 'latin1')
}
