import { ChannelkitError, shown } from '../errors.ts'
import type { Auth, UserOf } from './auth.ts'
import type { SessionStore } from './session-store.ts'
import { checkSecrets, type Secrets } from './signing.ts'

/** Where a site keeps its sessions, and how its cookie is signed: what express-session is given. */
export interface SessionConfig {
  /** Any store of express-session, the same that the site's app uses; or `SqliteSessionStore`. */
  readonly store: SessionStore
  /** What signs the session cookie; of a list the first signs and all verify. */
  readonly secret: string | readonly string[]
  /** Default `connect.sid`. */
  readonly cookieName?: string
  /**
   * Whether a client may name its session by `?session_key=` instead of the cookie. What stands in
   * a URL is easily seen by others; tickets are safer. Default true in development only.
   */
  readonly allowSessionKeyInUrl?: boolean
  /**
   * What keys of channel sessions and tickets are made with, if it is to stay the same while
   * `secret` is rotated; of a list the first makes them and all are tried. Default `secret`.
   */
  readonly channelSecret?: string | readonly string[]
  /**
   * How long a channel session lives when neither used nor ended, in milliseconds; its socket may
   * be quiet for half of it. Default 7 days.
   */
  readonly channelExpiryMs?: number
  /**
   * How long a call to the store may take, in milliseconds, 1–3,600,000; the consumer that waits
   * for it then fails. Default 10,000.
   */
  readonly storeTimeoutMs?: number
}

/** {@link SessionConfig}, checked, with its defaults. */
export interface ResolvedSessionConfig {
  readonly store: SessionStore
  readonly secrets: Secrets
  readonly channelSecrets: Secrets
  readonly cookieName: string
  readonly allowSessionKeyInUrl: boolean
  readonly channelExpiryMs: number
  readonly storeTimeoutMs: number
}

const weekMs = 7 * 86_400_000

const knownKeys: ReadonlySet<string> = new Set([
  'store',
  'secret',
  'cookieName',
  'allowSessionKeyInUrl',
  'channelSecret',
  'channelExpiryMs',
  'storeTimeoutMs',
] satisfies (keyof SessionConfig)[])

/**
 * Checks `session` of a config.
 *
 * @throws {ChannelkitError} `ERR_INVALID_CONFIG`
 */
export function resolveSessionConfig(
  config: SessionConfig,
  isProduction: boolean,
): ResolvedSessionConfig {
  if (typeof config !== 'object' || config === null) throw noStore('session', config)
  const { store, cookieName = 'connect.sid', channelSecret } = config
  const { channelExpiryMs = weekMs, storeTimeoutMs = 10_000 } = config
  if (!isStore(store)) throw noStore('session.store', store)
  const unknown = Object.keys(config).find((key) => !knownKeys.has(key))
  if (unknown !== undefined) {
    throw new ChannelkitError(
      'ERR_INVALID_CONFIG',
      `session has an unknown key ${shown(unknown)}; it may have ${[...knownKeys].join(', ')}`,
    )
  }
  if (typeof cookieName !== 'string' || cookieName === '') {
    throw new ChannelkitError(
      'ERR_INVALID_CONFIG',
      `session.cookieName is ${shown(cookieName)}; give the name of the session cookie`,
    )
  }
  if (!Number.isInteger(channelExpiryMs) || channelExpiryMs < 1) {
    throw new ChannelkitError(
      'ERR_INVALID_CONFIG',
      `session.channelExpiryMs is ${shown(channelExpiryMs)}; give a whole number of milliseconds from 1`,
    )
  }
  if (!Number.isInteger(storeTimeoutMs) || storeTimeoutMs < 1 || storeTimeoutMs > 3_600_000) {
    throw new ChannelkitError(
      'ERR_INVALID_CONFIG',
      `session.storeTimeoutMs is ${shown(storeTimeoutMs)}; give a whole number of milliseconds from 1 to 3,600,000`,
    )
  }
  const secrets = checkSecrets('session.secret', config.secret, isProduction)
  return {
    store,
    secrets,
    channelSecrets:
      channelSecret === undefined
        ? secrets
        : checkSecrets('session.channelSecret', channelSecret, isProduction),
    cookieName,
    allowSessionKeyInUrl: config.allowSessionKeyInUrl ?? !isProduction,
    channelExpiryMs,
    storeTimeoutMs,
  }
}

/** How a site tells its users; a function of the session is enough. */
export type AuthConfig = Auth | UserOf

/**
 * Checks `auth` of a config.
 *
 * @throws {ChannelkitError} `ERR_INVALID_CONFIG`
 */
export function resolveAuth(config: AuthConfig): Auth {
  const auth = typeof config === 'function' ? { user: config } : config
  if (typeof auth === 'object' && auth !== null && typeof auth.user === 'function') return auth
  throw new ChannelkitError(
    'ERR_INVALID_CONFIG',
    `auth is ${shown(config)}; give a function from session to user, { user, hash, id }, passportUser(passport) or betterAuthUser(auth)`,
  )
}

function isStore(store: unknown): store is SessionStore {
  return (
    typeof store === 'object' &&
    store !== null &&
    (['get', 'set', 'destroy'] as const).every(
      (name) => typeof (store as Partial<SessionStore>)[name] === 'function',
    )
  )
}

function noStore(name: string, given: unknown): ChannelkitError {
  const kind =
    typeof given === 'function'
      ? 'a function, as the middleware of express-session and cookie-session is'
      : shown(given)
  return new ChannelkitError(
    'ERR_INVALID_CONFIG',
    `${name} is ${kind}, and no session store with get, set and destroy. Sessions that live in the cookie alone (cookie-session, iron-session) cannot be saved from a WebSocket, which sets no cookies: keep them in a store, like new SqliteSessionStore({ file }) of channelkit/sessions or any store of express-session`,
  )
}
