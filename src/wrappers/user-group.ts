import { createHash } from 'node:crypto'
import { type BackendChoice, chosenBackend } from '../channel.ts'
import { currentSite } from '../current-site.ts'
import { Group } from '../group.ts'
import type { Message } from '../message.ts'
import type { User } from '../sessions/auth.ts'
import { readHidden, type Session } from '../sessions/session.ts'

/** What a session holds of a user that was transferred to it. */
export interface TransferredUser {
  /** The key of the session they signed in by, which is asked again for each message. */
  readonly session: string
  readonly id?: string
  /** Keyed hash of what `auth.hash` said of them. */
  readonly hash?: string
}

const transferring = new WeakSet<Session>()

/** Notes that a user was transferred to a session in this run of a consumer. */
export function noteTransfer(session: Session): void {
  transferring.add(session)
}

/** Puts a client into the group of the user that was just transferred to its channel session. */
export async function keepInUserGroup(message: Message, session: Session): Promise<void> {
  if (!transferring.delete(session)) return
  const user = readHidden(session, 'channelkit:user') as TransferredUser | undefined
  if (user?.id !== undefined) await addToUserGroup(message, user.id)
}

/** Puts a message's client into the group of all sockets of its user. */
export async function addToUserGroup(message: Message, userId: string): Promise<void> {
  if (!message.hasReplyChannel || !message.channel.startsWith('websocket.')) return
  await Group(groupName(userId), { backend: message.backend }).add(message.replyChannel)
}

/** What a site calls a user by, as text; undefined when it is not said. */
export function userId(user: User): string | undefined {
  const { auth } = currentSite().sessions()
  if (auth?.id) return String(auth.id(user))
  const { id, _id } = user as { readonly id?: unknown; readonly _id?: unknown }
  const found = id ?? _id
  return found === undefined || found === null ? undefined : String(found)
}

/** Options of {@link disconnectUser}. */
export interface DisconnectOptions extends BackendChoice {
  /** Close code the client is told, 4000-4999. Default 4001. */
  readonly code?: number
  /** Default `signed out`. */
  readonly reason?: string
}

/**
 * Closes all sockets of a user, on every interface server: those whose consumers are wrapped in
 * `httpSessionUser`, or in `channelSessionUser` with a user that was transferred.
 *
 * @param id - the user's `id`, or what `auth.id` says of them.
 */
export async function disconnectUser(
  id: string | number,
  options: DisconnectOptions = {},
): Promise<void> {
  const { code = 4001, reason = 'signed out', backend } = options
  const group = Group(groupName(String(id)), { backend: chosenBackend(backend) })
  await group.send({ close: code, reason }, { immediately: true })
}

/** Fits any id into a name, and does not show it. */
function groupName(userId: string): string {
  return `__users__.${createHash('sha256').update(userId).digest('base64url')}`
}
