import { ChannelkitError } from '../errors.ts'
import { type Clock, systemClock } from '../internal/clock.ts'
import type { Logger } from '../logger.ts'
import type { Auth } from './auth.ts'
import {
  applyChanges,
  changesOf,
  expiryOf,
  isStored,
  makeSession,
  noteSaved,
  type Session,
  type SessionChanges,
} from './session.ts'
import {
  type AuthConfig,
  type ResolvedSessionConfig,
  resolveAuth,
  resolveSessionConfig,
  type SessionConfig,
} from './session-config.ts'
import { destroySession, readSession, type StoredSession, writeSession } from './session-store.ts'
import { isKeyedHash, keyedHash, verifyCookie } from './signing.ts'

/** What {@link SiteSessions} is made of. */
export interface SiteSessionsOptions {
  readonly session: SessionConfig
  readonly auth?: AuthConfig | undefined
  readonly isProduction: boolean
  readonly logger: Logger
  /** Default the machine's, which is what stores go by. */
  readonly clock?: Clock
}

interface ChangeOptions {
  readonly expiresAt?: number
  readonly mayStillSave?: (() => void) | undefined
}

// Tells channel sessions from those of the site, which share the store. A client never learns a key
// with this start, and cannot use one.
const channelPrefix = 'channel-'

const passPurpose = 'passed session'

/** The sessions and users of a site, as its config says. */
export class SiteSessions {
  readonly config: ResolvedSessionConfig
  readonly auth: Auth | undefined
  readonly #logger: Logger
  readonly #clock: Clock
  /** The last change under way of each key, for stores that cannot change a session in one go. */
  readonly #changing = new Map<string, Promise<void>>()

  /** @throws {ChannelkitError} `ERR_INVALID_CONFIG` */
  constructor({ session, auth, isProduction, logger, clock }: SiteSessionsOptions) {
    this.config = resolveSessionConfig(session, isProduction)
    this.auth = auth === undefined ? undefined : resolveAuth(auth)
    this.#logger = logger
    this.#clock = clock ?? systemClock
  }

  /** The key of the site's session that a request's cookies name and sign. */
  keyFromCookies(
    cookies: Readonly<Record<string, string>>,
    host: string | undefined,
  ): string | undefined {
    const { sessions } = this.auth ?? {}
    if (sessions) return sessions.key(cookies, host)
    const cookie = cookies[this.config.cookieName]
    return cookie === undefined ? undefined : verifyCookie(cookie, this.config.secrets)
  }

  /**
   * The site's session under a key, if there is one: none is ever made, since a key that a client
   * chose would be known to it.
   */
  async load(key: string): Promise<Session | undefined> {
    if (key === '' || key.startsWith(channelPrefix)) return undefined
    const { sessions } = this.auth ?? {}
    const stored = sessions ? await sessions.load(key) : await readSession(this.config.store, key)
    return stored && makeSession(key, stored as StoredSession)
  }

  /** The session of a reply channel, with nothing in it when there is none yet. */
  async loadOfChannel(replyChannel: string): Promise<Session> {
    const [first, ...older] = this.#channelKeys(replyChannel)
    const stored = await readSession(this.config.store, first)
    if (stored) return makeSession(first, stored)
    for (const key of older) {
      const kept = await readSession(this.config.store, key)
      if (kept) return makeSession(key, kept)
    }
    return makeSession(first, undefined)
  }

  /** Ends the session of a reply channel. */
  async destroyOfChannel(replyChannel: string): Promise<void> {
    for (const key of this.#channelKeys(replyChannel)) await destroySession(this.config.store, key)
  }

  /**
   * Stores what has changed in the site's session; one that was ended meanwhile stays ended.
   *
   * @param mayStillSave - is asked at the moment of storing; what it throws keeps it from that.
   */
  async save(session: Session, mayStillSave?: () => void): Promise<void> {
    const changes = changesOf(session)
    if (changes.values.size === 0) return
    if (this.auth?.sessions) {
      throw new ChannelkitError(
        'ERR_NOT_SUPPORTED',
        `httpSession is kept by the site's auth library, and ${keysOf(changes)} of it cannot be changed; keep it in channelSession`,
      )
    }
    await this.#change(session, changes, { mayStillSave })
  }

  /**
   * Stores what has changed in a channel's session, and puts its expiry off when that is near.
   *
   * @param mayStillSave - as for {@link save}.
   */
  async saveOfChannel(session: Session, mayStillSave?: () => void): Promise<void> {
    const changes = changesOf(session)
    const now = this.#clock.now()
    const { channelExpiryMs } = this.config
    const isFresh = (expiryOf(session) ?? now) - now > channelExpiryMs / 2
    if (changes.values.size === 0 && (isFresh || !isStored(session))) return
    await this.#change(session, changes, { expiresAt: now + channelExpiryMs, mayStillSave })
  }

  /** A session's key in a form that a message may carry to another consumer of this site. */
  pass(key: string): string {
    return `${key}.${keyedHash(passPurpose, key, this.config.channelSecrets[0])}`
  }

  /** The key in what {@link pass} made; undefined for anything else. */
  passed(text: string): string | undefined {
    const end = text.lastIndexOf('.')
    const key = text.slice(0, Math.max(end, 0))
    const hash = text.slice(end + 1)
    return isKeyedHash(passPurpose, key, hash, this.config.channelSecrets) ? key : undefined
  }

  #channelKeys(replyChannel: string): [string, ...string[]] {
    const { channelSecrets } = this.config
    return channelSecrets.map(
      (secret) => channelPrefix + keyedHash('channel session', replyChannel, secret),
    ) as [string, ...string[]]
  }

  async #change(
    session: Session,
    changes: SessionChanges,
    { expiresAt, mayStillSave }: ChangeOptions,
  ): Promise<void> {
    const { store, channelExpiryMs } = this.config
    const { id } = session
    let overwritten: readonly string[] = []
    const merge = (found: StoredSession | undefined): StoredSession | undefined => {
      mayStillSave?.()
      // It was ended since it was read: what is saved late does not bring it back.
      if (!found && isStored(session)) return undefined
      const merged = found ?? {}
      overwritten = applyChanges(merged, changes)
      if (expiresAt !== undefined) merged.cookie = channelCookie(expiresAt, channelExpiryMs)
      return merged
    }
    if (store.update) {
      await store.update(id, merge)
    } else {
      await this.#inTurn(id, async () => {
        const merged = merge(await readSession(store, id))
        if (merged) await writeSession(store, id, merged)
      })
    }
    noteSaved(session, changes, expiresAt)
    if (overwritten.length > 0) {
      this.#logger.warn(
        { keys: overwritten },
        `two consumers changed ${overwritten.join(', ')} of one session at once, and the later one counts; wrap both in linearize`,
      )
    }
  }

  /** Runs changes of one key one after the other. */
  async #inTurn(key: string, task: () => Promise<void>): Promise<void> {
    const before = this.#changing.get(key) ?? Promise.resolve()
    const done = before.then(task, task)
    this.#changing.set(key, done)
    try {
      await done
    } finally {
      if (this.#changing.get(key) === done) this.#changing.delete(key)
    }
  }
}

/** What stores read the expiry from; some insist on every key of express-session's cookie. */
function channelCookie(expiresAt: number, expiryMs: number): NonNullable<StoredSession['cookie']> {
  const cookie = { path: '/', httpOnly: true }
  return { ...cookie, originalMaxAge: expiryMs, expires: new Date(expiresAt) }
}

function keysOf({ values }: SessionChanges): string {
  return [...values.keys()].join(', ')
}
