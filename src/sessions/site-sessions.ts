import { ChannelkitError } from '../errors.ts'
import { type Clock, systemClock } from '../internal/clock.ts'
import type { Logger } from '../logger.ts'
import type { Auth, ForeignSessions } from './auth.ts'
import {
  applyChanges,
  type ChannelSession,
  changesOf,
  cookieOf,
  expiryOf,
  isStored,
  makeSession,
  noteSaved,
  ofReplyChannel,
  type Session,
  type SessionChanges,
  storedForm,
} from './session.ts'
import {
  type AuthConfig,
  type ResolvedSessionConfig,
  resolveAuth,
  resolveSessionConfig,
  type SessionConfig,
} from './session-config.ts'
import type { StoredSession } from './session-store.ts'
import { SharedStore } from './shared-store.ts'
import { isKeyedHash, keyedHash, verifyCookie } from './signing.ts'
import { StoreAnswers } from './store-answers.ts'

/** What {@link SiteSessions} is made of. */
export interface SiteSessionsOptions {
  readonly session: SessionConfig
  readonly auth?: AuthConfig | undefined
  readonly isProduction: boolean
  readonly logger: Logger
  /** Is told the key of each session that the site has ended in this process. */
  readonly onEnded?: (key: string) => void
  /** Default the machine's, which is what stores go by. */
  readonly clock?: Clock
}

interface ChangeOptions {
  /** How long a channel session is to live from now; undefined for one of the site. */
  readonly expiryMs?: number
  readonly mayStillSave?: (() => void) | undefined
}

// Tells channel sessions from those of the site, which share the store. A client never learns a key
// with this start, and cannot use one.
const channelPrefix = 'channel-'

const passPurpose = 'passed session'

// A consumer that ends later than this after its socket may leave a channel session behind.
const goneMs = 600_000
// An answer to an HTTP request is over by then, and with it what its reply channel is good for.
const requestExpiryMs = 600_000
const longestTouchMs = 60_000
const mostTouched = 10_000

/** The sessions and users of a site, as its config says. */
export class SiteSessions {
  readonly config: ResolvedSessionConfig
  readonly auth: Auth | undefined
  readonly #logger: Logger
  readonly #clock: Clock
  readonly #answers: StoreAnswers
  readonly #store: SharedStore
  /** When sessions were last touched, the latest last. */
  readonly #touchedAt = new Map<string, number>()

  /** @throws {ChannelkitError} `ERR_INVALID_CONFIG` */
  constructor(options: SiteSessionsOptions) {
    const { session, auth, isProduction, logger, onEnded = () => {} } = options
    this.config = resolveSessionConfig(session, isProduction)
    this.auth = auth === undefined ? undefined : resolveAuth(auth)
    this.#logger = logger
    this.#clock = options.clock ?? systemClock
    const { store, storeTimeoutMs: timeoutMs } = this.config
    this.#answers = new StoreAnswers({ timeoutMs, clock: this.#clock })
    this.#store = new SharedStore({
      store,
      answers: this.#answers,
      clock: this.#clock,
      onEnded: (key) => {
        if (!key.startsWith(channelPrefix)) onEnded(key)
      },
      onOverwritten: () => {
        const message =
          'another process wrote over what a consumer had changed in a session, and it could not be saved again; use a store with update'
        logger.error({}, message)
      },
    })
    if (!store.update) {
      logger[isProduction ? 'warn' : 'info'](
        { store: store.constructor.name },
        'the session store has no update: what a process that stalls for half a second saves may undo a change of another, or a sign-out in a process without Channelkit; docs/sessions.md says how to give it one',
      )
    }
  }

  /** Lets go of the store, which stays open. */
  close(): void {
    this.#store.close()
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
    const stored = sessions ? await this.#loadForeign(sessions, key) : await this.#store.read(key)
    return stored && makeSession(key, stored as StoredSession)
  }

  /**
   * The site's session under a key that a client wrote into a URL. Some stores make a path of it, so
   * it has to look like one, and to have been made by a session library.
   */
  async loadNamed(key: string): Promise<Session | undefined> {
    if (this.auth?.sessions || !isSessionKey(key)) return undefined
    const session = await this.load(key)
    return session && cookieOf(session) ? session : undefined
  }

  /**
   * Puts off the expiry of the site's session, as each request to the site does: once a minute at
   * most, and more often where its cookie lasts less than four. What fails is logged.
   */
  async touch(session: Session): Promise<void> {
    if (this.auth?.sessions) return
    const now = this.#clock.now()
    const maxAge = cookieOf(session)?.originalMaxAge
    const intervalMs = Math.min(longestTouchMs, (maxAge ?? Number.POSITIVE_INFINITY) / 4)
    if (now - (this.#touchedAt.get(session.id) ?? 0) < intervalMs) return
    this.#touchedAt.delete(session.id)
    this.#touchedAt.set(session.id, now)
    const [oldest] = this.#touchedAt.keys()
    if (this.#touchedAt.size > mostTouched && oldest !== undefined) this.#touchedAt.delete(oldest)
    const stored = storedForm(session)
    try {
      await this.#store.touch(session.id, { ...stored, ...laterCookie(stored, now) })
    } catch (error) {
      this.#logger.warn({ err: error }, 'a session could not be touched, and may expire in use')
    }
  }

  /** The session of a reply channel, with nothing in it when there is none yet. */
  async loadOfChannel(replyChannel: string): Promise<ChannelSession> {
    const [first, ...older] = this.#channelKeys(replyChannel)
    for (const key of [first, ...older]) {
      const stored = await this.#store.read(key)
      if (stored) return ofReplyChannel(makeSession(key, stored))
    }
    return ofReplyChannel(makeSession(first, undefined))
  }

  /** Ends the session of a reply channel, also for consumers of it that run still. */
  async destroyOfChannel(replyChannel: string): Promise<void> {
    for (const key of this.#channelKeys(replyChannel)) await this.#store.end(key, goneMs)
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
   * @param channel - whose message it is saved for: an HTTP request is soon over.
   * @param mayStillSave - as for {@link save}.
   */
  async saveOfChannel(
    session: ChannelSession,
    { channel, mayStillSave }: { channel?: string; mayStillSave?: () => void } = {},
  ): Promise<void> {
    const changes = changesOf(session)
    const now = this.#clock.now()
    const isOfRequest = channel === 'http.request' || channel === 'http.disconnect'
    const longestMs = isOfRequest ? requestExpiryMs : Number.POSITIVE_INFINITY
    const kept = cookieOf(session)?.originalMaxAge
    const expiryMs = Math.min(longestMs, kept ?? this.config.channelExpiryMs)
    const isFresh = (expiryOf(session) ?? now) - now > expiryMs / 2
    if (changes.values.size === 0 && (isFresh || !isStored(session))) return
    await this.#change(session, changes, { expiryMs, mayStillSave })
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

  /** A session that another library keeps, which may be as slow or as talkative as any store. */
  #loadForeign(
    sessions: ForeignSessions,
    key: string,
  ): Promise<Readonly<Record<string, unknown>> | undefined> {
    return this.#answers.of('auth.sessions.load', key, sessions.load(key))
  }

  async #change(
    session: Session,
    changes: SessionChanges,
    { expiryMs, mayStillSave }: ChangeOptions,
  ): Promise<void> {
    const now = this.#clock.now()
    const expiresAt = expiryMs === undefined ? undefined : now + expiryMs
    const overwritten = new Set<string>()
    let isSaved = false
    await this.#store.change(session.id, (found) => {
      mayStillSave?.()
      // It was ended since it was read: what is saved late does not bring it back.
      if (!found && isStored(session)) return undefined
      const merged = found ?? {}
      for (const key of applyChanges(merged, changes)) overwritten.add(key)
      // It is made again, after another process had undone it.
      if (isSaved) this.#warnOfOverwritten(overwritten)
      const cookie =
        expiryMs === undefined ? laterCookie(merged, now) : channelCookie(now, expiryMs)
      return Object.assign(merged, cookie)
    })
    noteSaved(session, changes, expiresAt)
    isSaved = true
    this.#warnOfOverwritten(overwritten)
  }

  /** Says once which keys two consumers have changed. */
  #warnOfOverwritten(overwritten: Set<string>): void {
    if (overwritten.size === 0) return
    const keys = [...overwritten]
    overwritten.clear()
    this.#logger.warn(
      { keys },
      `two consumers changed ${keys.join(', ')} of one session at once, and the later one counts; wrap both in linearize`,
    )
  }
}

/** Whether a text has the form of the keys that session libraries make. */
export function isSessionKey(text: string): boolean {
  return /^[\w-]{16,128}$/.test(text)
}

/** What stores read the expiry from; some insist on every key of express-session's cookie. */
function channelCookie(now: number, expiryMs: number): Pick<StoredSession, 'cookie'> {
  const cookie = { path: '/', httpOnly: true }
  return { cookie: { ...cookie, originalMaxAge: expiryMs, expires: new Date(now + expiryMs) } }
}

/** The cookie of a session that is used now: what is stored of it may be of long ago. */
function laterCookie({ cookie }: StoredSession, now: number): Pick<StoredSession, 'cookie'> {
  if (!cookie) return {}
  const { originalMaxAge } = cookie
  if (typeof originalMaxAge !== 'number') return { cookie }
  return { cookie: { ...cookie, expires: new Date(now + originalMaxAge) } }
}

function keysOf({ values }: SessionChanges): string {
  return [...values.keys()].join(', ')
}
