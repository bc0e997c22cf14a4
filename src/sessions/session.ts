import type { StoredSession } from './session-store.ts'

/**
 * What sites keep in their sessions. Declare the keys of yours:
 * `declare module 'channelkit' { interface SessionData { room?: string } }`.
 */
export interface SessionData {
  [key: string]: unknown
}

/**
 * A session: a plain object of values that JSON can hold. Assign to its keys or delete them; what
 * has changed is saved by the wrapper that made it.
 */
export type Session = SessionData & { readonly id: string }

/** Keys of a stored session that are Channelkit's own and that sites do not see. */
export type HiddenKey = 'channelkit:http' | 'channelkit:user'

interface SessionState {
  /** The JSON of each key as it was stored; keys that were not there are missing. */
  saved: Map<string, string>
  readonly hidden: Map<string, unknown>
  isStored: boolean
  expiresAt: number | undefined
}

const hiddenPrefix = 'channelkit:'
const states = new WeakMap<object, SessionState>()

/** Makes the session of a key out of what is stored, if anything is. */
export function makeSession(id: string, stored: StoredSession | undefined): Session {
  const session = Object.defineProperty({}, 'id', { value: id }) as Session
  const saved = new Map<string, string>()
  const hidden = new Map<string, unknown>()
  const expires = stored?.cookie?.expires
  for (const [key, value] of Object.entries(stored ?? {})) {
    if (key === 'cookie' || key === 'id') continue
    const json = jsonOf(value)
    if (json === undefined) continue
    saved.set(key, json)
    const own: unknown = JSON.parse(json)
    if (key.startsWith(hiddenPrefix)) hidden.set(key, own)
    else setOwn(session, key, own)
  }
  states.set(session, {
    saved,
    hidden,
    isStored: stored !== undefined,
    expiresAt: expires ? new Date(expires).getTime() : undefined,
  })
  return session
}

/** Whether the store had it when it was read. */
export function isStored(session: Session): boolean {
  return stateOf(session).isStored
}

/** When what is stored expires, in milliseconds since the epoch, if the store said so. */
export function expiryOf(session: Session): number | undefined {
  return stateOf(session).expiresAt
}

/** Reads what Channelkit keeps in a session. */
export function readHidden(session: Session, key: HiddenKey): unknown {
  return stateOf(session).hidden.get(key)
}

/** Keeps something of Channelkit's in a session; undefined forgets it. */
export function writeHidden(session: Session, key: HiddenKey, value: unknown): void {
  const { hidden } = stateOf(session)
  if (value === undefined) hidden.delete(key)
  else hidden.set(key, value)
}

/** What has changed since a session was read or saved. */
export interface SessionChanges {
  /** The JSON of each changed key; undefined for one that was deleted. */
  readonly values: ReadonlyMap<string, string | undefined>
  /** The JSON those keys had before. */
  readonly before: ReadonlyMap<string, string>
}

/** Finds what has changed in a session, also deep inside its values. */
export function changesOf(session: Session): SessionChanges {
  const { saved, hidden } = stateOf(session)
  const values = new Map<string, string | undefined>()
  for (const [key, value] of [...Object.entries(session), ...hidden]) {
    if (key === 'cookie') continue
    const json = jsonOf(value)
    if (json !== saved.get(key)) values.set(key, json)
  }
  for (const key of saved.keys()) {
    if (!Object.hasOwn(session, key) && !hidden.has(key)) values.set(key, undefined)
  }
  return { values, before: saved }
}

/** Notes that changes were stored. */
export function noteSaved(
  session: Session,
  { values }: SessionChanges,
  expiresAt: number | undefined,
): void {
  const state = stateOf(session)
  for (const [key, json] of values) {
    if (json === undefined) state.saved.delete(key)
    else state.saved.set(key, json)
  }
  state.isStored = true
  state.expiresAt = expiresAt ?? state.expiresAt
}

/**
 * Puts changes into what is stored at the moment, key by key.
 *
 * @returns the keys that someone else has changed in the meantime, to another value.
 */
export function applyChanges(current: StoredSession, { values, before }: SessionChanges): string[] {
  const overwritten: string[] = []
  for (const [key, json] of values) {
    const found = Object.hasOwn(current, key) ? jsonOf(current[key]) : undefined
    if (found !== before.get(key) && found !== json) overwritten.push(key)
    if (json === undefined) delete current[key]
    else setOwn(current, key, JSON.parse(json))
  }
  return overwritten
}

function stateOf(session: Session): SessionState {
  const state = states.get(session)
  if (state) return state
  throw new TypeError('this is no session; pass message.httpSession or message.channelSession')
}

/** JSON of a value; undefined for what JSON leaves out. */
function jsonOf(value: unknown): string | undefined {
  return JSON.stringify(value) as string | undefined
}

/** Sets a key of any name, also `__proto__`, as an ordinary one. */
function setOwn(target: object, key: string, value: unknown): void {
  Object.defineProperty(target, key, {
    value,
    enumerable: true,
    configurable: true,
    writable: true,
  })
}
