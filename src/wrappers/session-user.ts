import { type Consumer, type Given, wrapConsumer } from '../consumer.ts'
import { currentSite } from '../current-site.ts'
import { ChannelkitError } from '../errors.ts'
import type { Message } from '../message.ts'
import { type Auth, hashOf, type User, userOf } from '../sessions/auth.ts'
import {
  type ChannelSession,
  isOfChannel,
  type Session,
  type SessionWithUser,
  writeHidden,
} from '../sessions/session.ts'
import { isKeyedHash, keyedHash } from '../sessions/signing.ts'
import { channelSession, type WithChannelSession } from './channel-session.ts'
import { httpSession, type WithHttpSession } from './http-session.ts'
import { addToMessage, isActivity, stateOf } from './message-state.ts'
import {
  joinGroupsOf,
  leaveGroupsOf,
  type TransferredUser,
  transfer,
  transferredTo,
  userId,
} from './user-group.ts'

/** What {@link httpSessionUser} and {@link channelSessionUser} both add to a message. */
export interface WithUser {
  /** Who the client is, fresh from the site; null when nobody is signed in. */
  readonly user: User | null
}

/** What {@link httpSessionUser} adds to a message. */
export type WithHttpSessionUser = WithHttpSession &
  WithUser & { readonly httpSession: SessionWithUser | null }

/** What {@link channelSessionUser} adds to a message. */
export type WithChannelSessionUser = WithChannelSession &
  WithUser & { readonly channelSession: SessionWithUser }

const hashPurpose = 'auth hash'

/** The user of each session that a wrapper has asked for, and by what they are known again. */
const users = new WeakMap<Session, Known>()

interface Known {
  readonly user: User | null
  readonly proof?: TransferredUser
}

const nobody: Known = { user: null }

/**
 * Wraps a consumer so that `message.user` is who is signed in on the site, by its own session; and
 * `message.httpSession` that session, as with `httpSession`.
 *
 * @throws {ChannelkitError} when it runs: `ERR_NOT_CONFIGURED`
 */
export function httpSessionUser<M extends Message>(
  consumer: Consumer<Given<M> & WithHttpSessionUser>,
): Consumer<M> {
  const withUser = async (message: Given<M> & WithHttpSession): Promise<void> => {
    const { httpSession: session } = message
    const { user, proof } = session ? await signedIn(session) : nobody
    addToMessage(message, 'user', user)
    if (proof && isRenewing(message)) await joinGroupsOf(message, proof)
    // Whoever signed them out while they were looked up has not met this socket in their groups.
    const isEntering = message.channel === 'websocket.connect'
    if (proof && isEntering && !(await stillSignedIn(proof, message)).proof) {
      await leaveGroupsOf(message, proof)
      stateOf(message).httpSession = null
      addToMessage(message, 'httpSession', null)
      addToMessage(message, 'user', null)
    }
    await consumer(message as Given<M> & WithHttpSession & WithHttpSessionUser)
  }
  return httpSession<M>(wrapConsumer(withUser, consumer))
}

/**
 * Wraps a consumer so that `message.user` is who `transferUser` has put into the channel session,
 * as long as they are signed in on the site; and `message.channelSession` that session, as with
 * `channelSession`.
 *
 * @throws {ChannelkitError} when it runs: `ERR_NO_REPLY_CHANNEL`, `ERR_NOT_CONFIGURED`
 */
export function channelSessionUser<M extends Message>(
  consumer: Consumer<Given<M> & WithChannelSessionUser>,
): Consumer<M> {
  const withUser = async (message: Given<M> & WithChannelSession): Promise<void> => {
    const { user, proof } = await transferred(message)
    addToMessage(message, 'user', user)
    if (proof && isRenewing(message)) await joinGroupsOf(message, proof)
    await consumer(message as Given<M> & WithChannelSession & WithChannelSessionUser)
  }
  return channelSession<M>(wrapConsumer(withUser, consumer))
}

/**
 * Puts the user of one session into another, so that `channelSessionUser` finds them for messages
 * that know only their reply channel. Of an anonymous session, or none, it does nothing.
 *
 * @param from - the session of a message that is wrapped in `httpSessionUser` or
 *   `channelSessionUser`.
 * @throws {ChannelkitError} `ERR_WRAPPER_MISUSE` for a session that was not asked for its user.
 */
export function transferUser(from: SessionWithUser | null, to: ChannelSession): void {
  if (from === null) return
  const known = users.get(from)
  if (!known) {
    throw new ChannelkitError(
      'ERR_WRAPPER_MISUSE',
      'transferUser is given a session whose user is not known; wrap the consumer in httpSessionUser instead of httpSession, or in channelSessionUser instead of channelSession',
    )
  }
  if (!isOfChannel(to)) {
    throw new ChannelkitError(
      'ERR_WRAPPER_MISUSE',
      'transferUser is to put a user into a session that is no channel session; give it message.channelSession second',
    )
  }
  if (known.proof) transfer(to, known.proof)
}

/** The user of the site's own session. */
async function signedIn(session: Session): Promise<Known> {
  const known = users.get(session)
  if (known) return known
  const user = await userOf(authOf(), session)
  const found = user ? { user, proof: proofOf(session.id, user) } : nobody
  users.set(session, found)
  return found
}

/** The user that was transferred to a message's channel session, if they are still signed in. */
async function transferred(message: Message & WithChannelSession): Promise<Known> {
  const { channelSession: session } = message
  const proof = transferredTo(session)
  const found = proof ? await stillSignedIn(proof, message) : nobody
  // What a consumer keeps in the session says nothing of who the client is: a client may have sent it.
  if (proof && !found.proof) writeHidden(session, 'channelkit:user', undefined)
  users.set(session, found)
  return found
}

/** Looks again at the session that a user signed in by, and at the user. */
async function stillSignedIn(proof: TransferredUser, message: Message): Promise<Known> {
  const sessions = currentSite().sessions()
  const source = await sessions.load(proof.session)
  const user = source ? await userOf(authOf(), source) : null
  if (!source || !user || !isSameUser(proof, user)) return nobody
  if (isActivity(message)) await sessions.touch(source)
  return { user, proof }
}

function proofOf(session: string, user: User): TransferredUser {
  const id = userId(user)
  const hash = hashOf(authOf(), user)
  const [secret] = currentSite().sessions().config.channelSecrets
  return {
    session,
    id,
    ...(hash !== undefined && { hash: keyedHash(hashPurpose, hash, secret) }),
  }
}

/** Whether a user is the one that was transferred, with nothing changed that signs them out. */
function isSameUser({ id, hash }: TransferredUser, user: User): boolean {
  if (userId(user) !== id) return false
  const ownHash = hashOf(authOf(), user)
  if (ownHash === undefined || hash === undefined) return ownHash === hash
  const { channelSecrets } = currentSite().sessions().config
  return isKeyedHash(hashPurpose, ownHash, hash, channelSecrets)
}

function authOf(): Auth {
  const { auth } = currentSite().sessions()
  if (auth) return auth
  throw new ChannelkitError(
    'ERR_NOT_CONFIGURED',
    'message.user is asked for, and the config does not say who a session belongs to; give it auth: a function from session to user, passportUser(passport) or betterAuthUser(auth)',
  )
}

/** Whether a message is one of those by which group memberships are made and kept. */
function isRenewing({ channel }: Message): boolean {
  return channel === 'websocket.connect' || channel === 'websocket.keepalive'
}
