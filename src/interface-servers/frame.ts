import type { Content } from '../content.ts'
import type { Reply } from './reply.ts'

const text = 1
const binary = 2
// Beyond this, copying frames into one buffer costs more than writing them one by one.
const maxJoinedBytes = 65_536

/**
 * Encodes what a reply's `content` and `binary` say as one unmasked, unfragmented WebSocket frame
 * (RFC 6455 section 5.2), or gives null where there is nothing to send.
 *
 * Made here, not by the socket's library, because one buffer then serves every member of a group
 * and the frames of one turn can share a write.
 *
 * @throws {TypeError} when `content` is neither text nor bytes.
 */
export function encodeReplyFrame(content: Content): Buffer | null {
  if (!hasFrame(content)) return null
  const length = payloadLength(content)
  const frame = Buffer.allocUnsafe(headLength(length) + length)
  writeFrame(frame, 0, content, length)
  return frame
}

/**
 * Whether a reply has something to send.
 *
 * @throws {TypeError} when its `content` is neither text nor bytes.
 */
export function hasFrame({ content }: Content): boolean {
  if (typeof content === 'string' || content instanceof Uint8Array) return true
  if (content === undefined || content === null) return false
  throw new TypeError(
    `the content of a reply to a socket is ${Array.isArray(content) ? 'an array' : `a ${typeof content}`}; send a string or bytes`,
  )
}

/**
 * Encodes replies that all have something to send, in order, into as few buffers as is cheap.
 * A frame that a group shares is taken as it is.
 */
export function encodeReplies(replies: readonly Reply[]): readonly Buffer[] {
  const [first] = replies
  if (first && replies.length === 1) return [first.frame ?? frameOf(first)]
  let total = 0
  for (const { frame, content } of replies) {
    if (frame) {
      total += frame.length
    } else {
      const length = payloadLength(content)
      total += headLength(length) + length
    }
  }
  if (total > maxJoinedBytes) return replies.map((reply) => reply.frame ?? frameOf(reply))
  const joined = Buffer.allocUnsafe(total)
  let offset = 0
  for (const { frame, content } of replies) {
    if (frame) {
      joined.set(frame, offset)
      offset += frame.length
    } else {
      offset = writeFrame(joined, offset, content, payloadLength(content))
    }
  }
  return [joined]
}

function frameOf(reply: Reply): Buffer {
  const length = payloadLength(reply.content)
  const frame = Buffer.allocUnsafe(headLength(length) + length)
  writeFrame(frame, 0, reply.content, length)
  return frame
}

function payloadLength({ content }: Content): number {
  return typeof content === 'string'
    ? Buffer.byteLength(content)
    : (content as Uint8Array).byteLength
}

function headLength(length: number): number {
  return length < 126 ? 2 : length < 65_536 ? 4 : 10
}

/** @returns the offset behind the frame. */
function writeFrame(target: Buffer, start: number, reply: Content, length: number): number {
  const { content, binary: isBinary } = reply
  const isText = typeof content === 'string' ? isBinary !== true : isBinary === false
  let offset = start
  target[offset++] = 0x80 | (isText ? text : binary)
  if (length < 126) {
    target[offset++] = length
  } else if (length < 65_536) {
    target[offset++] = 126
    offset = target.writeUInt16BE(length, offset)
  } else {
    target[offset++] = 127
    offset = target.writeUInt32BE(Math.floor(length / 0x1_0000_0000), offset)
    offset = target.writeUInt32BE(length >>> 0, offset)
  }
  if (typeof content === 'string') target.write(content, offset, length)
  else target.set(content as Uint8Array, offset)
  return offset + length
}
