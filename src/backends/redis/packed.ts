import { isAscii } from 'node:buffer'

/** One packed entry: see `wire.ts`. */
export interface PackedEntry {
  /** Place of its channel in the call, from 1; 0 in an inbox. */
  readonly index: number
  readonly hasTurn: boolean
  readonly entry: Buffer
}

const colon = 0x3a
const comma = 0x2c
const many = 0x70
const block = 0x62
const star = 0x2a
// The first byte of content that is JSON alone: see `codec.ts`.
const json = 0x31

/** Takes packed entries apart, from `offset` on. */
export function unpack(packed: Buffer, offset = 0): PackedEntry[] {
  const entries: PackedEntry[] = []
  for (let at = offset; at < packed.length; ) {
    const indexEnd = packed.indexOf(colon, at)
    if (packed[indexEnd + 1] === many) {
      at = unpackMany(packed, indexEnd + 3, wholeNumberAt(packed, at, indexEnd), entries)
      continue
    }
    const turnEnd = packed.indexOf(colon, indexEnd + 1)
    const lengthEnd = packed.indexOf(colon, turnEnd + 1)
    const length = wholeNumberAt(packed, turnEnd + 1, lengthEnd)
    const start = lengthEnd + 1
    entries.push({
      index: wholeNumberAt(packed, at, indexEnd),
      hasTurn: turnEnd > indexEnd + 1,
      entry: packed.subarray(start, start + length),
    })
    at = start + length
  }
  return entries
}

/** Takes apart what is packed under one index; `at` is where its lengths begin. Returns its end. */
function unpackMany(packed: Buffer, at: number, index: number, entries: PackedEntry[]): number {
  const lengthsEnd = packed.indexOf(colon, at)
  let start = lengthsEnd + 1
  let length = 0
  for (let place = at; place <= lengthsEnd; place++) {
    const byte = packed[place] as number
    if (byte !== comma && byte !== colon) {
      length = length * 10 + byte - 0x30
      continue
    }
    entries.push({ index, hasTurn: false, entry: packed.subarray(start, start + length) })
    start += length
    length = 0
  }
  return start
}

/** Reads decimal digits; 0 for none. */
export function wholeNumberAt(bytes: Buffer, start: number, end: number): number {
  let number = 0
  for (let at = start; at < end; at++) number = number * 10 + (bytes[at] as number) - 0x30
  return number
}

/** A message of a work channel as it lies there. */
export interface WorkEntry {
  readonly id: string
  readonly expiresAt: number
  readonly attempts: number
  /** Not told of what came in a block. */
  readonly line: string | undefined
  readonly encoded: string | Buffer
}

/** Takes an entry of a work channel apart, which may be a block of several messages. */
export function readWorkEntry(entry: Buffer, into: WorkEntry[]): void {
  // An id and a time of expiry have 16 digits each.
  if (entry[0] !== block) {
    const id = entry.toString('latin1', 0, 16)
    into.push(workEntry(entry, undefined, id, wholeNumberAt(entry, 17, 33), 34, entry.length))
    return
  }
  const first = wholeNumberAt(entry, 1, 17)
  const expiresAt = wholeNumberAt(entry, 18, 34)
  const text = asciiOf(entry)
  for (let at = entry.indexOf(colon, 35) + 1, count = 0; at < entry.length; count++) {
    const lengthEnd = entry.indexOf(colon, at)
    const end = lengthEnd + 1 + wholeNumberAt(entry, at, lengthEnd)
    const id = String(first + count).padStart(16, '0')
    into.push(workEntry(entry, text, id, expiresAt, lengthEnd + 1, end))
    at = end
  }
}

/** @param text - the bytes, where they are ASCII: parts of one string cost less than parts of bytes. */
function workEntry(
  bytes: Buffer,
  text: string | undefined,
  id: string,
  expiresAt: number,
  start: number,
  end: number,
): WorkEntry {
  const attemptsEnd = bytes.indexOf(colon, start)
  const lengthEnd = bytes.indexOf(colon, attemptsEnd + 1)
  const isLineTold = bytes[attemptsEnd + 1] !== star
  const hasLine = isLineTold && lengthEnd > attemptsEnd + 1
  const lineLength = isLineTold ? wholeNumberAt(bytes, attemptsEnd + 1, lengthEnd) : 0
  const contentStart = lengthEnd + 1 + lineLength
  return {
    id,
    expiresAt,
    attempts: wholeNumberAt(bytes, start, attemptsEnd),
    line: hasLine ? textAt(bytes, text, lengthEnd + 1, contentStart) : undefined,
    encoded: contentAt(bytes, text, contentStart, end),
  }
}

/** Content that is JSON as text, other content as bytes, also where these happen to be ASCII. */
function contentAt(
  bytes: Buffer,
  text: string | undefined,
  start: number,
  end: number,
): string | Buffer {
  if (text !== undefined && bytes[start] === json) return text.slice(start, end)
  return bytes.subarray(start, end)
}

function textAt(bytes: Buffer, text: string | undefined, start: number, end: number): string {
  return text?.slice(start, end) ?? bytes.toString('utf8', start, end)
}

function asciiOf(bytes: Buffer): string | undefined {
  return isAscii(bytes) ? bytes.toString('latin1') : undefined
}

/** A message or change of membership as it lies in an inbox. */
export interface RawInboxEntry {
  /** `m`, `g`, `a` or `d`: see `wire.ts`. */
  readonly kind: string
  readonly expiresAt: number
  readonly target: string
  readonly rest: string | Buffer
}

/** Whether an entry of an inbox of this kind is a message, and no change of membership. */
export function isMessage(kind: string): boolean {
  return kind === 'm' || kind === 'g'
}

/** Takes an entry of an inbox apart, which may be a block of several messages. */
export function readInboxEntry(entry: Buffer, into: RawInboxEntry[]): void {
  const expiresAt = wholeNumberAt(entry, 1, 17)
  if (entry[0] !== block) {
    into.push(rawInboxEntry(entry, undefined, 0, expiresAt, 17, entry.length))
    return
  }
  const text = asciiOf(entry)
  for (let at = entry.indexOf(colon, 17) + 1; at < entry.length; ) {
    const lengthEnd = entry.indexOf(colon, at + 1)
    const end = lengthEnd + 1 + wholeNumberAt(entry, at + 1, lengthEnd)
    into.push(rawInboxEntry(entry, text, at, expiresAt, lengthEnd + 1, end))
    at = end
  }
}

function rawInboxEntry(
  bytes: Buffer,
  text: string | undefined,
  kindAt: number,
  expiresAt: number,
  start: number,
  end: number,
): RawInboxEntry {
  const lengthEnd = bytes.indexOf(colon, start)
  const restStart = lengthEnd + 1 + wholeNumberAt(bytes, start, lengthEnd)
  return {
    kind: String.fromCharCode(bytes[kindAt] as number),
    expiresAt,
    target: textAt(bytes, text, lengthEnd + 1, restStart),
    rest: contentAt(bytes, text, restStart, end),
  }
}

/** Joins what is to be stored of several messages into one block: see `wire.ts`. */
export function makeBlock(
  messages: readonly { readonly kind?: string; readonly body: string | Buffer }[],
): string | Buffer {
  if (messages.some(({ body }) => typeof body !== 'string')) {
    return Buffer.concat(
      messages.flatMap(({ kind = '', body }) => {
        const bytes = Buffer.from(body as string)
        return [Buffer.from(`${kind}${bytes.length}:`), bytes]
      }),
    )
  }
  let text = ''
  for (const { kind = '', body } of messages) text += `${kind}${Buffer.byteLength(body)}:${body}`
  return text
}

/** Messages of work channels as the arguments of `send`. */
export interface WorkBlocks {
  readonly args: readonly (string | Buffer)[]
  /** How many messages each argument has. */
  readonly counts: readonly number[]
  /** The first message of each argument. */
  readonly firsts: readonly number[]
}

// What a receiver has no room for of a block is divided from it, and joined again: a small block costs little more.
const mostPerBlock = 16
const mostBytesPerBlock = 16_384

/** A message of a work channel that is to be stored. */
export interface NewWorkMessage {
  readonly channel: string
  /** Its content, encoded. */
  readonly body: string | Buffer
  readonly attempts: number
  readonly line: string | undefined
}

/** Joins neighbours that go to one channel into blocks. */
export function makeWorkBlocks(messages: readonly NewWorkMessage[]): WorkBlocks {
  const args: (string | Buffer)[] = []
  const counts: number[] = []
  const firsts: number[] = []
  for (let at = 0; at < messages.length; ) {
    const { channel } = messages[at] as (typeof messages)[number]
    let end = at
    let bytes = 0
    while (end < messages.length && end - at < mostPerBlock && bytes < mostBytesPerBlock) {
      const { channel: other, body } = messages[end] as (typeof messages)[number]
      if (other !== channel) break
      bytes += body.length
      end++
    }
    const some: { readonly body: string | Buffer }[] = []
    for (let place = at; place < end; place++) {
      some.push({ body: inBlock(messages[place] as NewWorkMessage, end - at > 1) })
    }
    args.push(some.length === 1 ? (some[0]?.body as string | Buffer) : makeBlock(some))
    counts.push(some.length)
    firsts.push(at)
    at = end
  }
  return { args, counts, firsts }
}

/** The line stands in JSON too, where a script finds it should it be needed. */
function inBlock({ body, attempts, line }: NewWorkMessage, isBlock: boolean): string | Buffer {
  // Lua's JSON refuses half of a surrogate pair, which ours escapes.
  const isRead = isBlock && typeof body === 'string' && !body.includes('\\ud')
  if (isRead && line !== undefined) return `${attempts}:*:${body}`
  return withLength(line, body, `${attempts}:`)
}

/** `LENGTH:` TEXT REST, with the length in bytes; LENGTH is left empty for no text. */
export function withLength(
  text: string | undefined,
  rest: string | Buffer,
  start = '',
): string | Buffer {
  const head = text === undefined ? `${start}:` : `${start}${Buffer.byteLength(text)}:${text}`
  return typeof rest === 'string' ? head + rest : Buffer.concat([Buffer.from(head), rest])
}
