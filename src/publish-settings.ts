import { ChannelkitError, shown } from './errors.ts'

/** A token of the publish endpoint, and what may be sent with it. */
export interface PublishToken {
  /** At least 32 of `A-Z a-z 0-9 . _ ~ + / -`, perhaps with `=` at the end. */
  readonly token: string
  /** Channels it may send to: names or globs like `mail.*`. Default none. */
  readonly channels?: readonly string[]
  /** Groups it may send to: names or globs like `chat-*`. Default none. */
  readonly groups?: readonly string[]
}

/** The endpoint where programs in other languages send by HTTP; without it there is none. */
export interface PublishSettings {
  /** Path of the endpoint, which is matched exactly. Default `/channelkit/publish`. */
  readonly path?: string
  /**
   * Who may send: a token alone sends to every channel and group. Several let one be exchanged for
   * another.
   */
  readonly tokens: readonly (string | PublishToken)[]
  /** Largest request body, in bytes; a larger one gets 413. Default 2,621,440 (2.5 MiB). */
  readonly maxBodyBytes?: number
  /** Most messages of one request; more get 413. Default 100. */
  readonly maxMessages?: number
}

/** What one token may send to. */
export interface PublishGrant {
  readonly token: string
  mayUseChannel(name: string): boolean
  mayUseGroup(name: string): boolean
}

export interface ResolvedPublishSettings {
  readonly path: string
  readonly tokens: readonly PublishGrant[]
  readonly maxBodyBytes: number
  readonly maxMessages: number
}

const leastTokenLength = 32
/** RFC 6750 section 2.1. */
const tokenForm = /^[A-Za-z0-9\-._~+/]+=*$/

/**
 * @throws {ChannelkitError} `ERR_INVALID_CONFIG` naming the setting and its value, which for a token
 *   is its place alone.
 */
export function resolvePublishSettings(settings: PublishSettings): ResolvedPublishSettings {
  if (!isTable(settings)) {
    throw invalid(`publish is ${shown(settings)}; give { tokens: […] }, or leave it out`)
  }
  const { path = '/channelkit/publish', tokens } = settings
  if (typeof path !== 'string' || !/^(?:\/[\w.~-]+)+$/.test(path) || /\/\.\.?(?:\/|$)/.test(path)) {
    throw invalid(`publish.path is ${shown(path)}; give one like /channelkit/publish`)
  }
  if (!Array.isArray(tokens) || tokens.length === 0) {
    throw invalid(
      `publish.tokens is ${Array.isArray(tokens) ? 'empty' : kindOf(tokens)}; give a list of tokens, each made like openssl rand -hex 32`,
    )
  }
  const resolved = Object.freeze({
    path,
    tokens: tokens.map(grantOf),
    maxBodyBytes: number('maxBodyBytes', settings.maxBodyBytes ?? 2_621_440),
    maxMessages: number('maxMessages', settings.maxMessages ?? 100),
  })
  checkKeys('publish', settings, Object.keys(resolved))
  if (new Set(resolved.tokens.map(({ token }) => token)).size < tokens.length) {
    throw invalid(
      'publish.tokens has one token twice; give each once, with all that it may send to',
    )
  }
  return resolved
}

function grantOf(entry: unknown, index: number): PublishGrant {
  const place = `publish.tokens[${index}]`
  if (!isTable(entry)) {
    const token = checkToken(place, entry)
    return { token, mayUseChannel: () => true, mayUseGroup: () => true }
  }
  const { token, channels, groups } = entry
  checkKeys(place, entry, ['token', 'channels', 'groups'])
  if (channels === undefined && groups === undefined) {
    throw invalid(
      `${place} may send to nothing; add channels or groups, or give the token alone for all`,
    )
  }
  return {
    token: checkToken(`${place}.token`, token),
    mayUseChannel: patternsOf(`${place}.channels`, channels),
    mayUseGroup: patternsOf(`${place}.groups`, groups),
  }
}

/** What is wrong is said without the token. */
function checkToken(place: string, token: unknown): string {
  if (typeof token !== 'string') {
    throw invalid(`${place} is ${kindOf(token)}; give a token made like openssl rand -hex 32`)
  }
  if (token.length < leastTokenLength) {
    throw invalid(
      `${place} has ${token.length} characters; give at least ${leastTokenLength}, made like openssl rand -hex 32`,
    )
  }
  if (!tokenForm.test(token)) {
    throw invalid(
      `${place} has characters that a token cannot have; use A-Z a-z 0-9 . _ ~ + / - and = at the end`,
    )
  }
  return token
}

function patternsOf(place: string, patterns: unknown): (name: string) => boolean {
  if (patterns === undefined) return () => false
  const isList =
    Array.isArray(patterns) && patterns.every((each) => typeof each === 'string' && each !== '')
  if (!isList) {
    throw invalid(`${place} is ${shown(patterns)}; give a list of names or globs like 'mail.*'`)
  }
  const expressions = patterns.map((pattern: string) => {
    const parts = pattern.split('*').map((part) => part.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&'))
    return new RegExp(`^${parts.join('.*')}$`, 'su')
  })
  return (name) => expressions.some((expression) => expression.test(name))
}

function number(name: string, value: unknown): number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= 1) return value
  throw invalid(`publish.${name} is ${shown(value)}; give a whole number from 1`)
}

function checkKeys(place: string, table: object, known: readonly string[]): void {
  const unknown = Object.keys(table).find((key) => !known.includes(key))
  if (unknown === undefined) return
  throw invalid(
    `${place} has an unknown setting ${shown(unknown)}; it may have ${known.join(', ')}`,
  )
}

function kindOf(value: unknown): string {
  return value === null || value === undefined ? String(value) : `a ${typeof value}`
}

function isTable(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function invalid(message: string): ChannelkitError {
  return new ChannelkitError('ERR_INVALID_CONFIG', message)
}
