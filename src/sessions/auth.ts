import type { Register } from '../channel-types.ts'
import { ChannelkitError, shown } from '../errors.ts'
import type { Session } from './session.ts'

/**
 * A site's user. Tell the compiler what yours are:
 * `declare module 'channelkit' { interface Register { user: { id: number; username: string } } }`.
 */
export type User = Register extends { readonly user: infer U }
  ? U
  : { readonly [key: string]: unknown }

/** Who a session belongs to; nobody when it is anonymous. */
export type UserOf = (
  session: Session,
) => User | null | undefined | Promise<User | null | undefined>

/** How a site tells its users. */
export interface Auth {
  /** Who a session belongs to, fresh from where users are kept; null for nobody. */
  readonly user: UserOf
  /** What `disconnectUser` calls a user by. Default the user's `id`, or `_id`. */
  readonly id?: (user: User) => string | number
  /**
   * Something of the user that changes when everyone signed in as them has to sign in again, like
   * the hash of the password; null for an account without one. It is stored only as a keyed hash.
   */
  readonly hash?: (user: User) => string | null | undefined
  /** Finds sessions where the site does not keep them in `session.store`; they are not written to. */
  readonly sessions?: ForeignSessions
}

/**
 * Who a session belongs to, by the site's `auth.user`.
 *
 * @throws {ChannelkitError} `ERR_INVALID_CONFIG` when that is no user.
 */
export async function userOf(auth: Auth, session: Session): Promise<User | null> {
  const found: unknown = await auth.user(session)
  // Lookups say in many ways that there is nobody.
  if (!found) return null
  if (typeof found === 'object') return found as User
  throw new ChannelkitError(
    'ERR_INVALID_CONFIG',
    `auth.user gives ${shown(found)}; let it give the user as an object, or null`,
  )
}

/**
 * What signs a user out when it changes, by the site's `auth.hash`; undefined for nothing.
 *
 * @throws {ChannelkitError} `ERR_INVALID_CONFIG` when that is no text.
 */
export function hashOf(auth: Auth, user: User): string | undefined {
  const hash: unknown = auth.hash?.(user) ?? undefined
  if (hash === undefined || typeof hash === 'string') return hash
  throw new ChannelkitError(
    'ERR_INVALID_CONFIG',
    `auth.hash gives a ${typeof hash}; let it give a text, like the hash of the password, or null for none`,
  )
}

/** Sessions that another library keeps. */
export interface ForeignSessions {
  /**
   * The key of a request's session.
   *
   * @param host - its Host header, where it has one.
   */
  key(cookies: Readonly<Record<string, string>>, host?: string): string | undefined
  /** What is in the session of a key, if there is one. */
  load(key: string): Promise<Readonly<Record<string, unknown>> | undefined>
}

/** What is used of Passport. */
export interface PassportLike {
  deserializeUser(
    serialized: never,
    request: never,
    done: (error: unknown, user?: unknown) => void,
  ): unknown
}

/**
 * Users of a site that signs them in by Passport: what `passport.serializeUser` put into the
 * session goes through the functions given to `passport.deserializeUser`.
 *
 * @param passport - the site's `passport`, or its own `new Passport()`.
 */
export function passportUser(passport: PassportLike): Auth {
  if (typeof passport?.deserializeUser !== 'function') {
    throw new ChannelkitError(
      'ERR_INVALID_ARGUMENT',
      `passportUser is given ${shown(passport)}; give the passport that your app uses`,
    )
  }
  return { user: (session) => deserialize(passport, session) }
}

function deserialize(passport: PassportLike, session: Session): Promise<User | null> | null {
  const { passport: stored } = session as { passport?: { user?: unknown } }
  const serialized = stored?.user
  // Passport's own test: 0 is an id.
  if (serialized === undefined || serialized === null || serialized === '') return null
  return new Promise((resolve, reject) => {
    // Deserializers that take the request are given one that has a session and nothing else.
    passport.deserializeUser(serialized as never, { session } as never, (error, user) => {
      if (error) reject(error)
      else resolve(user ? (user as User) : null)
    })
  })
}

/** What is used of Better Auth. */
export interface BetterAuthLike {
  readonly api: {
    getSession(options: {
      headers: Headers
      query?: { disableCookieCache?: boolean; disableRefresh?: boolean }
    }): Promise<{ readonly session: object; readonly user: object } | null>
  }
  /** What it was made with. */
  readonly options?: object
}

/** What is read of that. */
interface BetterAuthSettings {
  readonly database?: unknown
  readonly secondaryStorage?: unknown
  readonly advanced?: {
    readonly cookiePrefix?: string
    readonly cookies?: { readonly session_token?: { readonly name?: string } }
  }
}

/** Options of {@link betterAuthUser}. */
export interface BetterAuthOptions {
  /**
   * Name of the cookie that names the session, without `__Secure-`. Default what Better Auth's
   * `advanced.cookies` and `advanced.cookiePrefix` make of it: `better-auth.session_token`.
   */
  readonly cookieName?: string
}

/**
 * Users of a site that signs them in by Better Auth. `message.httpSession` then has Better Auth's
 * own `session` and `user`, and cannot be changed.
 *
 * @param auth - what `betterAuth({ … })` has made.
 * @throws {ChannelkitError} `ERR_INVALID_ARGUMENT` for anything else, and for a Better Auth without
 *   database or secondary storage, whose sessions live in the cookie alone.
 */
export function betterAuthUser(auth: BetterAuthLike, options: BetterAuthOptions = {}): Auth {
  if (typeof auth?.api?.getSession !== 'function') {
    throw new ChannelkitError(
      'ERR_INVALID_ARGUMENT',
      `betterAuthUser is given ${shown(auth)}; give what betterAuth({ … }) has made`,
    )
  }
  const settings: BetterAuthSettings | undefined = auth.options
  if (settings && !settings.database && !settings.secondaryStorage) {
    throw new ChannelkitError(
      'ERR_INVALID_ARGUMENT',
      'betterAuthUser is given a Better Auth without database and secondaryStorage, whose sessions live in the cookie alone: a socket could not tell when they end; give betterAuth one of the two',
    )
  }
  const { cookieName = sessionCookieOf(settings) } = options
  const secureName = `__Secure-${cookieName}`
  return {
    user: (session) => (session.user ?? null) as User | null,
    sessions: {
      key(cookies, host = '') {
        const name = [secureName, cookieName].find((each) => cookies[each] !== undefined)
        return name === undefined ? undefined : `${name}=${cookies[name]} ${host}`
      },
      async load(key) {
        const mark = key.indexOf('=')
        const end = key.lastIndexOf(' ')
        const value = encodeURIComponent(key.slice(mark + 1, end))
        const headers = new Headers({ cookie: `${key.slice(0, mark)}=${value}` })
        // A Better Auth that serves several hosts asks which one it is.
        if (end + 1 < key.length) headers.set('host', key.slice(end + 1))
        const query = { disableCookieCache: true, disableRefresh: true }
        const found = await auth.api.getSession({ headers, query })
        return found ? { session: found.session, user: found.user } : undefined
      },
    },
  }
}

function sessionCookieOf({ advanced = {} }: BetterAuthSettings = {}): string {
  const { cookiePrefix, cookies } = advanced
  return cookies?.session_token?.name ?? `${cookiePrefix || 'better-auth'}.session_token`
}
