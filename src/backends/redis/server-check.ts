import { ChannelkitError, isChannelkitError } from '../../errors.ts'
import type { RedisClient } from './redis-client.ts'

const oldestVersion = [6, 2] as const

/** Replies by which a server says that it cannot serve now. */
const outageReplies =
  /^(LOADING|MASTERDOWN|CLUSTERDOWN|READONLY|TRYAGAIN|BUSY|UNBLOCKED|NOREPLICAS)\b/

/** What a server replied; before Redis 7 a reply to a command of a script is wrapped in another. */
function replyOf(message: string): string {
  return /^ERR Error running script .*?: -([A-Z]+\b.*)$/s.exec(message)?.[1] ?? message
}

/** Whether a call failed because its server, or the way to it, is away. */
export function isOutage(error: unknown): boolean {
  if (isChannelkitError(error)) return false
  if (!(error instanceof Error)) return true
  return !isReply(error) || outageReplies.test(replyOf(error.message))
}

/** Whether a call was sent and not answered, so that it may have been carried out. */
export function isLostReply(error: unknown): boolean {
  return !isChannelkitError(error) && !(error instanceof Error && isReply(error))
}

/** Until Redis 7, what a script may not do is told in words alone. */
function isForbidden(text: string): boolean {
  return /NOPERM|unknown command|unknown redis command|no permissions|The user executing the script/i.test(
    text,
  )
}

/** What a server's refusal means for the caller. */
export function replyFault(error: unknown, shownAs: string): ChannelkitError {
  if (isChannelkitError(error)) return error
  const text = error instanceof Error ? error.message : String(error)
  if (/^(WRONGPASS|NOAUTH)\b|invalid username-password|AUTH.*without any password/.test(text)) {
    return new ChannelkitError(
      'ERR_INVALID_CONFIG',
      `Redis at ${shownAs} does not admit this user; correct the user name and password of its URL`,
      { cause: error },
    )
  }
  if (isForbidden(text)) {
    return new ChannelkitError(
      'ERR_INVALID_CONFIG',
      `Redis at ${shownAs} forbids what Channelkit needs (${text}); allow this user scripts (EVAL, EVALSHA), SUBSCRIBE, the commands within them, and all keys and publish channels that begin with the prefix`,
      { cause: error },
    )
  }
  const hint = replyOf(text).startsWith('OOM') ? '; raise its maxmemory' : ''
  return new ChannelkitError(
    'ERR_BACKEND_UNAVAILABLE',
    `Redis at ${shownAs} refused a call: ${text}${hint}`,
    { cause: error },
  )
}

/**
 * Makes sure that a server serves as channel backend.
 *
 * @throws {ChannelkitError} `ERR_INVALID_CONFIG` for one that is too old or closed to this user.
 */
export async function checkServer(client: RedisClient, shownAs: string): Promise<void> {
  let info: string
  try {
    info = String(await client.sendCommand(['INFO']))
  } catch (error) {
    throw isOutage(error) ? error : replyFault(error, shownAs)
  }
  if (/^role:slave/m.test(info)) throw new Error('it is a replica now')
  // Valkey says here which Redis it is like.
  const version = /^redis_version:(\d+)\.(\d+)/m.exec(info)
  const [major, minor] = [Number(version?.[1]), Number(version?.[2])]
  const isOld = major < oldestVersion[0] || (major === oldestVersion[0] && minor < oldestVersion[1])
  if (!version || isOld) {
    const shown = version ? `version ${major}.${minor}` : 'no version that it tells of in INFO'
    throw new ChannelkitError(
      'ERR_INVALID_CONFIG',
      `Redis at ${shownAs} has ${shown}; use Redis ${oldestVersion.join('.')} or newer, or Valkey`,
    )
  }
}

function isReply(error: Error): boolean {
  return /ErrorReply$|SimpleError|BlobError/.test(error.constructor.name)
}
