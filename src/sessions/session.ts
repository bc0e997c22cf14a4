import { ChannelkitError, shown } from '../errors.ts'
import type { StoredSession } from './session-store.ts'

/** What may be kept in a session: what JSON gives back as it was given. */
export type SessionValue =
  | string
  | number
  | boolean
  | null
  | { readonly [key: string]: SessionValue | undefined }
  | SessionObject

/** A list, or an object of an interface; no function, map, set, date or bytes. */
export interface SessionObject {
  hasOwnProperty(key: PropertyKey): boolean
  readonly call?: undefined
  readonly getTime?: undefined
  readonly [Symbol.toStringTag]?: undefined
}

/**
 * What sites keep in their sessions. Declare the keys of yours:
 * `declare module 'channelkit' { interface SessionData { room?: string } }`.
 */
export interface SessionData {
  [key: string]: SessionValue | undefined
  /** How long the cookie lasts is the store's own. */
  cookie?: never
}

declare const madeByWrapper: unique symbol
declare const ofChannel: unique symbol
declare const userAskedFor: unique symbol

/**
 * A session: a plain object of values that JSON can hold. Assign to its keys or delete them; what
 * has changed is saved by the wrapper that made it.
 */
export type Session = SessionData & { readonly id: string; readonly [madeByWrapper]: true }

/** The session of a reply channel. */
export type ChannelSession = Session & { readonly [ofChannel]: true }

/** A session whose user is known, so that it can be transferred. */
export type SessionWithUser = Session & { readonly [userAskedFor]: true }

/** Keys of a stored session that are Channelkit's own and that sites do not see. */
export type HiddenKey = 'channelkit:http' | 'channelkit:user'

interface SessionState {
  /** The JSON of each key as it was stored; keys that were not there are missing. */
  saved: Map<string, string>
  readonly hidden: Map<string, unknown>
  readonly cookie: StoredSession['cookie']
  isStored: boolean
  isOfChannel: boolean
  expiresAt: number | undefined
}

const hiddenPrefix = 'channelkit:'
const states = new WeakMap<object, SessionState>()

/** Makes the session of a key out of what is stored, if anything is. */
export function makeSession(id: string, stored: StoredSession | undefined): Session {
  const session = Object.defineProperty({}, 'id', { value: id }) as Session
  const saved = new Map<string, string>()
  const hidden = new Map<string, unknown>()
  const cookie = stored?.cookie
  for (const [key, value] of Object.entries(stored ?? {})) {
    if (key === 'cookie' || key === 'id') continue
    const json = JSON.stringify(value) as string | undefined
    if (json === undefined) continue
    saved.set(key, json)
    const own: unknown = JSON.parse(json)
    if (key.startsWith(hiddenPrefix)) hidden.set(key, own)
    else setOwn(session, key, own)
  }
  states.set(session, {
    saved,
    hidden,
    cookie,
    isStored: stored !== undefined,
    isOfChannel: false,
    expiresAt: cookie?.expires ? new Date(cookie.expires).getTime() : undefined,
  })
  return session
}

/** Marks the session of a reply channel. */
export function ofReplyChannel(session: Session): ChannelSession {
  stateOf(session).isOfChannel = true
  return session as ChannelSession
}

/** Whether it is the session of a reply channel. */
export function isOfChannel(session: Session): session is ChannelSession {
  return stateOf(session).isOfChannel
}

/** Whether the store had it when it was read. */
export function isStored(session: Session): boolean {
  return stateOf(session).isStored
}

/** When what is stored expires, in milliseconds since the epoch, if the store said so. */
export function expiryOf(session: Session): number | undefined {
  return stateOf(session).expiresAt
}

/** What the store keeps of a session's cookie, as it was read. */
export function cookieOf(session: Session): StoredSession['cookie'] {
  return stateOf(session).cookie
}

/** What was stored when it was read or saved last. */
export function storedForm(session: Session): StoredSession {
  const { saved, cookie } = stateOf(session)
  const stored: StoredSession = cookie ? { cookie } : {}
  for (const [key, json] of saved) setOwn(stored, key, JSON.parse(json))
  return stored
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

/**
 * Finds what has changed in a session, also deep inside its values.
 *
 * @throws {ChannelkitError} `ERR_INVALID_CONTENT` naming the key, for a value that JSON would lose,
 *   and for keys that are not the site's.
 */
export function changesOf(session: Session): SessionChanges {
  const { saved, hidden } = stateOf(session)
  const values = new Map<string, string | undefined>()
  for (const [key, value] of Object.entries(session)) {
    const json = checkedJson(key, value)
    const before = saved.get(key)
    if (json === before) continue
    checkKey(key)
    if (json !== undefined) checkValue(key, value)
    values.set(key, json)
  }
  for (const [key, value] of hidden) {
    const json = JSON.stringify(value)
    if (json !== saved.get(key)) values.set(key, json)
  }
  for (const key of saved.keys()) {
    if (!Object.hasOwn(session, key) && !hidden.has(key)) values.set(key, undefined)
  }
  return { values, before: values.size === 0 ? saved : new Map(saved) }
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
 * @returns the site's keys that someone else has changed since they were read: what either has
 *   made of the old value, like a count, is lost, even where both made the same of it.
 */
export function applyChanges(current: StoredSession, { values, before }: SessionChanges): string[] {
  const overwritten: string[] = []
  for (const [key, json] of values) {
    const found = Object.hasOwn(current, key)
      ? (JSON.stringify(current[key]) as string | undefined)
      : undefined
    const isLost = found !== before.get(key) && (found !== undefined || json !== undefined)
    if (isLost && !key.startsWith(hiddenPrefix)) overwritten.push(key)
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

/** JSON of a value; undefined for undefined, which deletes a key. */
function checkedJson(key: string, value: unknown): string | undefined {
  if (value === undefined) return undefined
  let json: string | undefined
  try {
    json = JSON.stringify(value)
  } catch {
    // Names the place where it can; else it is a cycle, or its own toJSON has thrown.
    checkValue(key, value)
    throw unfit(key, 'a value that contains itself')
  }
  if (json === undefined) checkValue(key, value)
  return json
}

/** Refuses what JSON leaves out or makes something else of. */
function checkValue(key: string, value: unknown): void {
  const seen = new Set<unknown>()
  const walk = (inner: unknown, path: string): void => {
    const kind = typeof inner
    if (kind === 'bigint' || kind === 'function' || kind === 'symbol')
      throw unfit(path, `a ${kind}`)
    if (kind === 'number' && !Number.isFinite(inner)) throw unfit(path, String(inner))
    if (kind !== 'object' || inner === null || seen.has(inner)) return
    seen.add(inner)
    const tag = Object.prototype.toString.call(inner).slice(8, -1)
    if (tag !== 'Object' && tag !== 'Array') throw unfit(path, `a ${tag}`)
    for (const [name, each] of Object.entries(inner as object)) walk(each, `${path}.${name}`)
  }
  walk(value, key)
}

function checkKey(key: string): void {
  if (key !== 'cookie' && !key.startsWith(hiddenPrefix)) return
  throw new ChannelkitError(
    'ERR_INVALID_CONTENT',
    `a consumer has set the key ${shown(key)} of a session, which is not the site's to set; choose another, and never one that a client sent`,
  )
}

function unfit(path: string, kind: string): ChannelkitError {
  return new ChannelkitError(
    'ERR_INVALID_CONTENT',
    `${shown(path)} in a session is ${kind}; keep text, finite numbers, booleans, null, and lists and plain objects of them`,
  )
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
