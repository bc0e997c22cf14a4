import { type Content, type ContentMeasure, measureContent, storedDepth } from '../content.ts'
import { ChannelkitError } from '../errors.ts'

/**
 * The one encoding of content on every backend that leaves the process (`docs/redis-wire.md`).
 *
 * The first byte is the version:
 * - `1`: JSON follows. Kept as text.
 * - `2`: content with bytes in it. A 32-bit big-endian length L, then L bytes of JSON
 *   `[content, [[path, byteLength], ...]]` in which each bytes value is `null`, then the bytes
 *   values one behind the other. `path` lists keys and indexes from the top.
 *
 * JSON was as fast as msgpack below 1 KB on Node 20, needs no dependency and is read by every
 * language; bytes ride beside it, so they are never blown up to base64.
 */
export type Encoded = string | Buffer

/**
 * Encodes content, having checked it.
 *
 * @param maxBytes - infinite for what was let in once, which may be nested deeper too.
 * @throws {ChannelkitError} `ERR_INVALID_CONTENT`; `ERR_CONTENT_TOO_LARGE` when the encoded form
 *   is longer than `maxBytes`.
 */
export function encodeContent(content: Content, maxBytes: number): Encoded {
  const depth = maxBytes === Number.POSITIVE_INFINITY ? storedDepth : undefined
  return encodeMeasured(content, measureContent(content, depth), maxBytes)
}

/**
 * Throws `ERR_CONTENT_TOO_LARGE` when the encoded form would be longer than `maxBytes`; encodes
 * only where the bound from `measureContent` cannot tell.
 */
export function checkEncodedSize(content: Content, measure: ContentMeasure, maxBytes: number) {
  if (measure.maxBytes + 1 > maxBytes) encodeMeasured(content, measure, maxBytes)
}

function encodeMeasured(content: Content, measure: ContentMeasure, maxBytes: number): Encoded {
  const encoded = measure.hasBytes ? encodeWithBytes(content) : `1${JSON.stringify(content)}`
  if (measure.maxBytes + 1 > maxBytes) {
    const size = typeof encoded === 'string' ? Buffer.byteLength(encoded) : encoded.byteLength
    if (size > maxBytes) {
      throw new ChannelkitError(
        'ERR_CONTENT_TOO_LARGE',
        `content is ${size} bytes encoded, more than ${maxBytes}; send it in parts, or a reference to it`,
      )
    }
  }
  return encoded
}

/**
 * Decodes what {@link encodeContent} made into a fresh object.
 *
 * @throws {ChannelkitError} `ERR_INVALID_CONTENT` when it is of another version or damaged.
 */
export function decodeContent(encoded: string | Uint8Array): Content {
  try {
    if (typeof encoded === 'string') {
      if (encoded.charCodeAt(0) === 0x31) return asContent(JSON.parse(encoded.slice(1)))
    } else if (encoded[0] === 0x31) {
      return asContent(JSON.parse(asBuffer(encoded).toString('utf8', 1)))
    } else if (encoded[0] === 0x32) {
      return decodeWithBytes(asBuffer(encoded))
    }
  } catch (cause) {
    throw new ChannelkitError('ERR_INVALID_CONTENT', 'stored content is damaged; it is dropped', {
      cause,
    })
  }
  const start = typeof encoded === 'string' ? encoded.slice(0, 1) : String(encoded[0])
  throw new ChannelkitError(
    'ERR_INVALID_CONTENT',
    `stored content starts with ${JSON.stringify(start)}; run the same version of Channelkit everywhere`,
  )
}

type Path = (string | number)[]

function encodeWithBytes(content: Content): Buffer {
  const marks: [path: Path, byteLength: number][] = []
  const parts: Uint8Array[] = []
  const strip = (value: unknown, path: Path): unknown => {
    if (typeof value !== 'object' || value === null) return value
    if (value instanceof Uint8Array) {
      marks.push([path, value.byteLength])
      parts.push(value)
      return null
    }
    if (Array.isArray(value)) return value.map((item, index) => strip(item, [...path, index]))
    return Object.fromEntries(
      Object.entries(value).map(([key, item]) => [key, strip(item, [...path, key])]),
    )
  }
  const json = Buffer.from(JSON.stringify([strip(content, []), marks]))
  const head = Buffer.allocUnsafe(5)
  head[0] = 0x32
  head.writeUInt32BE(json.byteLength, 1)
  return Buffer.concat([head, json, ...parts])
}

function decodeWithBytes(encoded: Buffer): Content {
  const jsonEnd = 5 + encoded.readUInt32BE(1)
  const [content, marks] = JSON.parse(encoded.toString('utf8', 5, jsonEnd)) as [
    Content,
    [Path, number][],
  ]
  let offset = jsonEnd
  for (const [path, byteLength] of marks) {
    if (!(Number.isInteger(byteLength) && byteLength >= 0)) throw new RangeError('no length')
    let place = content as Record<string | number, unknown>
    for (const key of path.slice(0, -1)) {
      if (!Object.hasOwn(place, key)) throw new RangeError('a path leads nowhere')
      place = place[key] as Record<string | number, unknown>
    }
    const last = path.at(-1)
    if (last === undefined || !Object.hasOwn(place, last))
      throw new RangeError('a path leads nowhere')
    Object.defineProperty(place, last, {
      value: new Uint8Array(encoded.subarray(offset, offset + byteLength)),
      enumerable: true,
      configurable: true,
      writable: true,
    })
    offset += byteLength
  }
  if (offset !== encoded.byteLength) throw new RangeError('bytes are missing or left over')
  return asContent(content)
}

function asContent(value: unknown): Content {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new TypeError('content is not an object')
  }
  return value as Content
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes)
    ? bytes
    : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
