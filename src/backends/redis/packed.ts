/** One packed entry: see `wire.ts`. */
export interface PackedEntry {
  /** Place of its channel in the call, from 1; 0 in an inbox. */
  readonly index: number
  readonly hasTurn: boolean
  readonly entry: Buffer
}

const colon = 0x3a

/** Takes packed entries apart, from `offset` on. */
export function unpack(packed: Buffer, offset = 0): PackedEntry[] {
  const entries: PackedEntry[] = []
  for (let at = offset; at < packed.length; ) {
    const indexEnd = packed.indexOf(colon, at)
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
  readonly line: string | undefined
  readonly encoded: Buffer
}

/** Takes the entry of a work channel apart. */
export function readWorkEntry(entry: Buffer): WorkEntry {
  const idEnd = entry.indexOf(colon)
  const expiryEnd = entry.indexOf(colon, idEnd + 1)
  const attemptsEnd = entry.indexOf(colon, expiryEnd + 1)
  const lengthEnd = entry.indexOf(colon, attemptsEnd + 1)
  const hasLine = lengthEnd > attemptsEnd + 1
  const contentStart = lengthEnd + 1 + wholeNumberAt(entry, attemptsEnd + 1, lengthEnd)
  return {
    id: entry.toString('latin1', 0, idEnd),
    expiresAt: wholeNumberAt(entry, idEnd + 1, expiryEnd),
    attempts: wholeNumberAt(entry, expiryEnd + 1, attemptsEnd),
    line: hasLine ? entry.toString('utf8', lengthEnd + 1, contentStart) : undefined,
    encoded: entry.subarray(contentStart),
  }
}

/** Of an inbox entry: its kind, expiry, target and rest. */
export function readInboxEntry(entry: Buffer): {
  readonly kind: string
  readonly expiresAt: number
  readonly target: string
  readonly rest: Buffer
} {
  const lengthEnd = entry.indexOf(colon, 17)
  const restStart = lengthEnd + 1 + wholeNumberAt(entry, 17, lengthEnd)
  return {
    kind: entry.toString('latin1', 0, 1),
    expiresAt: wholeNumberAt(entry, 1, 17),
    target: entry.toString('utf8', lengthEnd + 1, restStart),
    rest: entry.subarray(restStart),
  }
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
