import type { Content } from '../content.ts'

const text = 1
const binary = 2

/**
 * Encodes what a reply's `content` and `binary` say as one unmasked, unfragmented WebSocket frame
 * (RFC 6455 section 5.2), or gives null where there is nothing to send.
 *
 * Made here, not by the socket's library, because one buffer then serves every member of a group
 * and the frames of one turn can share a write.
 *
 * @throws {TypeError} when `content` is neither text nor bytes.
 */
export function encodeReplyFrame({ content, binary: isBinary }: Content): Buffer | null {
  if (content === undefined || content === null) return null
  if (typeof content === 'string') return encodeText(content, isBinary === true ? binary : text)
  if (content instanceof Uint8Array) return encodeBytes(content, isBinary === false ? text : binary)
  throw new TypeError(
    `the content of a reply to a socket is ${Array.isArray(content) ? 'an array' : `a ${typeof content}`}; send a string or bytes`,
  )
}

function encodeText(content: string, opcode: number): Buffer {
  const length = Buffer.byteLength(content)
  const frame = newFrame(opcode, length)
  frame.write(content, frame.length - length)
  return frame
}

function encodeBytes(content: Uint8Array, opcode: number): Buffer {
  const frame = newFrame(opcode, content.byteLength)
  frame.set(content, frame.length - content.byteLength)
  return frame
}

function newFrame(opcode: number, length: number): Buffer {
  const headLength = length < 126 ? 2 : length < 65_536 ? 4 : 10
  const frame = Buffer.allocUnsafe(headLength + length)
  frame[0] = 0x80 | opcode
  if (headLength === 2) {
    frame[1] = length
  } else if (headLength === 4) {
    frame[1] = 126
    frame.writeUInt16BE(length, 2)
  } else {
    frame[1] = 127
    frame.writeUInt32BE(Math.floor(length / 0x1_0000_0000), 2)
    frame.writeUInt32BE(length >>> 0, 6)
  }
  return frame
}
