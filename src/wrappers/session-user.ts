import { type Consumer, type Given, wrapConsumer } from '../consumer.ts'
import { currentSite } from '../current-site.ts'
import { ChannelkitError } from '../errors.ts'
import type { Message } from '../message.ts'
import type { Auth, User } from '../sessions/auth.ts'
import { readHidden, type Session, writeHidden } from '../sessions/session.ts'
import { isKeyedHash, keyedHash } from '../sessions/signing.ts'
import { channelSession, type WithChannelSession } from './channel-session.ts'
import { httpSession, type WithHttpSession } from './http-session.ts'
import { addToMessage } from './message-state.ts'
import { addToUserGroup, noteTransfer, type TransferredUser, userId } from './user-group.ts'

/** What {@link httpSessionUser} and {@link channelSessionUser} add to a message. */
export interface WithUser {
  /** Who the client is, fresh from the site; null when nobody is signed in. */
  readonly user: User | null
}

const hashPurpose = 'auth hash'

/** The user of each session that a wrapper has asked for, and by what they are known again. */
const users = new WeakMap<Session, { user: User | null; proof: TransferredUser | undefined }>()

/**
 * Wraps a consumer so that `message.user` is who is signed in on the site, by its own session; and
 * `message.httpSession` that session, as with `httpSession`.
 *
 * @throws {ChannelkitError} when it runs: `ERR_NOT_CONFIGURED`
 */
export function httpSessionUser<M extends Message>(
  consumer: Consumer<Given<M> & WithHttpSession & WithUser>,
): Consumer<M> {
  const withUser = async (message: Given<M> & WithHttpSession): Promise<void> => {
    const { httpSession: session } = message
    const user = session && (await signedIn(session))
    addToMessage(message, 'user', user)
    if (user && isRenewing(message)) await joinUserGroup(message, user)
    await consumer(message as Given<M> & WithHttpSession & WithUser)
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
  consumer: Consumer<Given<M> & WithChannelSession & WithUser>,
): Consumer<M> {
  const withUser = async (message: Given<M> & WithChannelSession): Promise<void> => {
    const user = await transferred(message.channelSession)
    addToMessage(message, 'user', user)
    if (user && isRenewing(message)) await joinUserGroup(message, user)
    await consumer(message as Given<M> & WithChannelSession & WithUser)
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
export function transferUser(from: Session | null, to: Session): void {
  if (from === null) return
  const known = users.get(from)
  if (!known) {
    throw new ChannelkitError(
      'ERR_WRAPPER_MISUSE',
      'transferUser is given a session whose user is not known; wrap the consumer in httpSessionUser instead of httpSession, or in channelSessionUser instead of channelSession',
    )
  }
  if (!known.proof) return
  writeHidden(to, 'channelkit:user', known.proof)
  noteTransfer(to)
}

/** The user of the site's own session. */
async function signedIn(session: Session): Promise<User | null> {
  const known = users.get(session)
  if (known) return known.user
  const user = (await authOf().user(session)) ?? null
  users.set(session, { user, proof: user ? proofOf(session.id, user) : undefined })
  return user
}

/** The user that was transferred to a channel session, if they are still signed in. */
async function transferred(session: Session): Promise<User | null> {
  const proof = readHidden(session, 'channelkit:user') as TransferredUser | undefined
  if (!proof) {
    // A channel session is none of another library's, whatever consumers have put into it.
    return authOf().sessions ? null : signedIn(session)
  }
  const source = await currentSite().sessions().load(proof.session)
  const user = source ? ((await authOf().user(source)) ?? null) : null
  if (!user || !isSameUser(proof, user)) {
    writeHidden(session, 'channelkit:user', undefined)
    users.set(session, { user: null, proof: undefined })
    return null
  }
  users.set(session, { user, proof })
  return user
}

function proofOf(session: string, user: User): TransferredUser {
  const id = userId(user)
  const hash = authOf().hash?.(user)
  const [secret] = currentSite().sessions().config.channelSecrets
  return {
    session,
    ...(id !== undefined && { id }),
    ...(hash !== undefined && { hash: keyedHash(hashPurpose, hash, secret) }),
  }
}

/** Whether a user is the one that was transferred, with nothing changed that signs them out. */
function isSameUser({ id, hash }: TransferredUser, user: User): boolean {
  if (userId(user) !== id) return false
  const ownHash = authOf().hash?.(user)
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

async function joinUserGroup(message: Message, user: User): Promise<void> {
  const id = userId(user)
  if (id !== undefined) await addToUserGroup(message, id)
}
