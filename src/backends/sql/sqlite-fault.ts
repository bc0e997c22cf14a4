import { ChannelkitError, isChannelkitError } from '../../errors.ts'

// Primary result codes, https://sqlite.org/rescode.html
const names: Readonly<Record<number, string>> = {
  5: 'SQLITE_BUSY',
  6: 'SQLITE_LOCKED',
  8: 'SQLITE_READONLY',
  10: 'SQLITE_IOERR',
  11: 'SQLITE_CORRUPT',
  13: 'SQLITE_FULL',
  14: 'SQLITE_CANTOPEN',
  15: 'SQLITE_PROTOCOL',
  26: 'SQLITE_NOTADB',
}

const busy = new Set(['SQLITE_BUSY', 'SQLITE_LOCKED', 'SQLITE_PROTOCOL'])

// The connection itself is fine after these, and its prepared statements are worth keeping.
const passing = new Set([...busy, 'SQLITE_FULL'])

const explanations: Readonly<Record<string, string>> = {
  SQLITE_READONLY: 'cannot be written; give this user write access to it and its directory',
  SQLITE_IOERR: 'cannot be read or written; look at the disk',
  SQLITE_CORRUPT: 'is damaged; stop every process, move it away and start them again',
  SQLITE_NOTADB: 'is no SQLite database; name another file',
  SQLITE_FULL: 'cannot grow, since the disk is full; make room, and sending goes on by itself',
  SQLITE_CANTOPEN: 'cannot be opened; its directory must exist and be writable',
}

/** The primary code of a driver's error: `SQLITE_BUSY` for `SQLITE_BUSY_SNAPSHOT` too. */
function codeOf(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined
  const { code, rawCode, errcode } = error as {
    readonly code?: unknown
    readonly rawCode?: unknown
    readonly errcode?: unknown
  }
  // node:sqlite has `errcode`, libsql `rawCode`, both with the extended code in the upper bits.
  const extended = errcode ?? rawCode
  if (typeof extended === 'number') {
    const name = names[extended & 0xff]
    if (name) return name
  }
  if (typeof code !== 'string') return undefined
  return Object.values(names).find((name) => code === name || code.startsWith(`${name}_`))
}

/** Whether another process holds the lock, which passes. */
export function isBusy(error: unknown): boolean {
  return busy.has(codeOf(error) ?? '')
}

/** Whether the connection may have become useless, so that the next call needs a new one. */
export function costsConnection(error: unknown): boolean {
  return !isChannelkitError(error) && !passing.has(codeOf(error) ?? '')
}

/** Turns a driver's error into ours. */
export function sqliteFault(error: unknown, file: string, busyMs: number): ChannelkitError {
  if (isChannelkitError(error)) return error
  const explanation = isBusy(error)
    ? `was locked by another process for ${busyMs} ms; end what holds it, or raise busyMs`
    : (explanations[codeOf(error) ?? ''] ?? 'does not answer; see the cause')
  return new ChannelkitError(
    'ERR_BACKEND_UNAVAILABLE',
    `the SQLite database ${file} ${explanation}`,
    { cause: error },
  )
}
