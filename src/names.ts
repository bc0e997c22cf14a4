import { randomFillSync } from 'node:crypto'
import { ChannelkitError, shown } from './errors.ts'

/** Where interface servers tell of sockets that are gone when nobody consumes their disconnects. */
export const goneChannel = '__channels__.gone'

/** Longest channel or group name, in UTF-16 units (for channels the same as characters). */
export const maxNameLength = 200

const workChannel = /^[A-Za-z0-9._-]{1,200}$/
const anyChannel = /^[A-Za-z0-9._-]+(?:![A-Za-z0-9._-]+)?$/
const badCharacter = /[^A-Za-z0-9._-]/u

/** True for the name of one client's reply channel: `inbox!local`. */
export function isReplyChannel(name: string): boolean {
  return name.includes('!')
}

/** The inbox a reply channel belongs to: everything up to and including `!`. */
export function inboxOf(replyChannelName: string): string {
  return replyChannelName.slice(0, replyChannelName.indexOf('!') + 1)
}

/**
 * Says what is wrong with a channel name, or `undefined` when it may be sent to: 1–200 of
 * `A-Z a-z 0-9 . _ -`, with one `!` between two non-empty parts in a reply channel (N1).
 */
export function channelNameFault(name: unknown): ChannelkitError | undefined {
  if (typeof name === 'string' && name.length <= maxNameLength && anyChannel.test(name)) {
    return undefined
  }
  return new ChannelkitError('ERR_INVALID_NAME', explainChannelName(name))
}

/**
 * Says what is wrong with a name to receive on or to route: like a channel's, without `!`, since
 * a reply channel is read only by the interface server that made it (N4).
 */
export function workChannelNameFault(name: unknown): ChannelkitError | undefined {
  if (typeof name === 'string') {
    if (workChannel.test(name)) return undefined
    if (name.includes('!') && !badCharacter.test(name.replace('!', ''))) {
      return new ChannelkitError(
        'ERR_INVALID_NAME',
        `a reply channel cannot be received on, ${shown(name)}; its interface server reads it through its inbox`,
      )
    }
  }
  return new ChannelkitError('ERR_INVALID_NAME', explainChannelName(name))
}

/** Says what is wrong with a group name: any 1–200 characters will do (N2). */
export function groupNameFault(name: unknown): ChannelkitError | undefined {
  if (typeof name !== 'string') {
    return new ChannelkitError(
      'ERR_INVALID_NAME',
      `a group name is a string, not ${shown(name)} (${typeof name}); pass 1-${maxNameLength} characters`,
    )
  }
  if (name.length >= 1 && name.length <= maxNameLength && name.isWellFormed()) return undefined
  const problem =
    name.length === 0
      ? 'is empty'
      : name.length > maxNameLength
        ? `has ${name.length} characters`
        : 'has half a surrogate pair'
  return new ChannelkitError(
    'ERR_INVALID_NAME',
    `group name ${shown(name)} ${problem}; use 1-${maxNameLength} well-formed characters`,
  )
}

/** Throws what {@link channelNameFault} finds. */
export function checkChannelName(name: unknown): asserts name is string {
  const fault = channelNameFault(name)
  if (fault) throw fault
}

/** Throws what {@link groupNameFault} finds. */
export function checkGroupName(name: unknown): asserts name is string {
  const fault = groupNameFault(name)
  if (fault) throw fault
}

function explainChannelName(name: unknown): string {
  if (typeof name !== 'string') {
    return `a channel name is a string, not ${shown(name)} (${typeof name}); pass 1-${maxNameLength} of A-Z a-z 0-9 . _ -`
  }
  if (name.length === 0) return `channel name "" is empty; use 1-${maxNameLength} characters`
  if (name.length > maxNameLength) {
    return `channel name ${shown(name)} has ${name.length} characters; use at most ${maxNameLength}`
  }
  const marks = name.split('!').length - 1
  const bad = badCharacter.exec(name.replaceAll('!', ''))
  if (bad) {
    return `channel name ${shown(name)} has the character ${JSON.stringify(bad[0])}; use only A-Z a-z 0-9 . _ -`
  }
  if (marks > 1) {
    return `channel name ${shown(name)} has ${marks} exclamation marks; a reply channel has one`
  }
  return `channel name ${shown(name)} has nothing on one side of "!"; a reply channel is inbox!local`
}

const randomBytesPerName = 16
const pool = Buffer.alloc(randomBytesPerName * 256)
let poolOffset = pool.length

/**
 * 22 characters of `A-Z a-z 0-9 _ -` that carry 128 bits from the system's random source, so that
 * no reply channel can be guessed. Bytes are drawn for 256 names at a time.
 */
export function randomName(): string {
  if (poolOffset === pool.length) {
    randomFillSync(pool)
    poolOffset = 0
  }
  const name = pool.toString('base64url', poolOffset, poolOffset + randomBytesPerName)
  pool.fill(0, poolOffset, poolOffset + randomBytesPerName)
  poolOffset += randomBytesPerName
  return name
}
