import { createHash } from 'node:crypto'
import type { BackendChoice } from '../channel.ts'
import { currentSite, type SiteHandle } from '../current-site.ts'
import { ChannelkitError, shown } from '../errors.ts'
import { Group } from '../group.ts'
import type { Message } from '../message.ts'
import type { User } from '../sessions/auth.ts'
import { type ChannelSession, readHidden, type Session, writeHidden } from '../sessions/session.ts'

/** What a session holds of a user that was transferred to it. */
export interface TransferredUser {
  /** The key of the session they signed in by, which is asked again for each message. */
  readonly session: string
  readonly id: string
  /** Keyed hash of what `auth.hash` said of them. */
  readonly hash?: string
}

/** Sessions that a user was transferred to in this run of a consumer, and whom they had before. */
const transferring = new WeakMap<Session, TransferredUser | undefined>()

/** The user that a session was given; none where none was, or they were forgotten. */
export function transferredTo(session: ChannelSession): TransferredUser | undefined {
  return readHidden(session, 'channelkit:user') as TransferredUser | undefined
}

/** Gives a session a user. */
export function transfer(session: ChannelSession, user: TransferredUser): void {
  if (!transferring.has(session)) transferring.set(session, transferredTo(session))
  writeHidden(session, 'channelkit:user', user)
}

/**
 * Puts a client into the groups of the user that was just transferred to its channel session, and
 * takes it out of those of who was there before.
 */
export async function keepInUserGroup(message: Message, session: ChannelSession): Promise<void> {
  if (!transferring.has(session)) return
  const before = transferring.get(session)
  transferring.delete(session)
  const user = transferredTo(session)
  if (user) await joinGroupsOf(message, user)
  // Whoever ended the session meanwhile has not met this socket; a handshake looks again by itself.
  const isEntering = message.channel === 'websocket.connect'
  if (user && !isEntering && isOfSocket(message)) await closeIfEnded(message, user)
  if (!before || !isOfSocket(message)) return
  const current: readonly string[] = user ? groupsOf(user) : []
  const channel = message.replyChannel.name
  const left = groupsOf(before).filter((group) => !current.includes(group))
  await message.backend.groupDiscard(left.map((group) => ({ group, channel })))
}

/** Puts a socket among those of its user, and of the session they signed in by. */
export async function joinGroupsOf(message: Message, user: TransferredUser): Promise<void> {
  if (!isOfSocket(message)) return
  const channel = message.replyChannel.name
  await message.backend.groupAdd(groupsOf(user).map((group) => ({ group, channel })))
}

/** Takes a socket out again. */
export async function leaveGroupsOf(message: Message, user: TransferredUser): Promise<void> {
  if (!isOfSocket(message)) return
  const channel = message.replyChannel.name
  await message.backend.groupDiscard(groupsOf(user).map((group) => ({ group, channel })))
}

/**
 * What a site calls a user by, as text.
 *
 * @throws {ChannelkitError} `ERR_INVALID_CONFIG` where it is not said, since everyone would be one.
 */
export function userId(user: User): string {
  const { auth } = currentSite().sessions()
  const { id, _id } = user as { readonly id?: unknown; readonly _id?: unknown }
  const found: unknown = auth?.id ? auth.id(user) : (id ?? _id)
  if (found !== undefined && found !== null && found !== '') return String(found)
  throw new ChannelkitError(
    'ERR_INVALID_CONFIG',
    `${auth?.id ? 'auth.id gives' : 'a user has the id'} ${shown(found)}, by which nobody can be told from another; let auth.id give what is a user's own, like ({ username }) => username`,
  )
}

/** Options of {@link disconnectUser}. */
export interface DisconnectOptions extends BackendChoice {
  /** Close code the client is told, 3000-4999. Default 4001. */
  readonly code?: number
  /** At most 123 bytes. Default `signed out`. */
  readonly reason?: string
}

const signedOut = { code: 4001, reason: 'signed out' } as const
const longestReasonBytes = 123

/**
 * Closes all sockets of a user, on every interface server and all backends of the site: those whose
 * consumers are wrapped in `httpSessionUser`, or in `channelSessionUser` with a user that was
 * transferred.
 *
 * @param id - the user's `id`, or what `auth.id` says of them.
 * @throws {ChannelkitError} `ERR_INVALID_ARGUMENT`
 */
export async function disconnectUser(
  id: string | number,
  options: DisconnectOptions = {},
): Promise<void> {
  const { code = signedOut.code, reason = signedOut.reason, backend } = options
  if (!(typeof id === 'string' ? id !== '' : Number.isFinite(id))) {
    throw new ChannelkitError(
      'ERR_INVALID_ARGUMENT',
      `disconnectUser is given the id ${shown(id)}; give a user's id, as text or a number`,
    )
  }
  if (!(Number.isInteger(code) && code >= 3000 && code <= 4999)) {
    throw new ChannelkitError(
      'ERR_INVALID_ARGUMENT',
      `disconnectUser is given the code ${shown(code)}; give one of 3000-4999`,
    )
  }
  if (typeof reason !== 'string' || Buffer.byteLength(reason) > longestReasonBytes) {
    throw new ChannelkitError(
      'ERR_INVALID_ARGUMENT',
      `disconnectUser is given the reason ${shown(reason)}; give a text of at most ${longestReasonBytes} bytes`,
    )
  }
  const site = currentSite()
  const backends = backend === undefined ? site.backendNames : [backend]
  await closeGroup(site, userGroup(String(id)), { code, reason }, backends)
}

/** Closes the sockets of a session that the site has ended; what fails is logged. */
export function closeSocketsOf(site: SiteHandle, session: string): void {
  closeGroup(site, sessionGroup(session), signedOut, site.backendNames).catch((error) => {
    const message = 'sockets of a session that has ended could not be closed'
    site.logger.warn({ err: error }, message)
  })
}

async function closeGroup(
  site: SiteHandle,
  group: string,
  { code, reason }: { readonly code: number; readonly reason: string },
  backends: readonly NonNullable<BackendChoice['backend']>[],
): Promise<void> {
  const closing = backends.map((choice) => {
    const backend = typeof choice === 'string' ? site.backend(choice) : choice
    return Group(group, { backend }).send({ close: code, reason }, { immediately: true })
  })
  const failed = (await Promise.allSettled(closing)).find(({ status }) => status === 'rejected')
  if (failed?.status === 'rejected') throw failed.reason
}

async function closeIfEnded(message: Message, { session }: TransferredUser): Promise<void> {
  if (await currentSite().sessions().load(session)) return
  const { code, reason } = signedOut
  await message.replyChannel.send({ close: code, reason }, { immediately: true })
}

function isOfSocket(message: Message): boolean {
  return message.hasReplyChannel && message.channel.startsWith('websocket.')
}

function groupsOf({ id, session }: TransferredUser): readonly [string, string] {
  return [userGroup(id), sessionGroup(session)]
}

const userGroup = (id: string): string => `__users__.${hashed(id)}`
const sessionGroup = (session: string): string => `__sessions__.${hashed(session)}`

/** Fits anything into a name, and does not show it. */
function hashed(text: string): string {
  return createHash('sha256').update(text).digest('base64url')
}
