import { EventEmitter } from 'node:events'
import { resolve } from 'node:path'
import { change, rows, type SqlWork } from '../backends/sql/sql-client.ts'
import { SqliteClient } from '../backends/sql/sqlite-client.ts'
import type { SqliteDatabase, SqliteDriverName } from '../backends/sql/sqlite-driver.ts'
import { ChannelkitError, shown } from '../errors.ts'
import { type Clock, systemClock } from '../internal/clock.ts'
import type { SessionStore, StoredSession } from './session-store.ts'

/** Options of {@link SqliteSessionStore}. */
export interface SqliteSessionStoreOptions {
  /** Path of the database, which is created when it is missing; its directory must be there. */
  readonly file: string
  /** An open database, which stays open, or the driver to use. Default the first that is installed. */
  readonly driver?: SqliteDatabase | SqliteDriverName
  /** Name of the table: 1-40 of `A-Z a-z 0-9 _`. Default `channelkit_session`. */
  readonly table?: string
  /** How long a session lives whose cookie has no expiry, in milliseconds. Default a day. */
  readonly expiryMs?: number
  /** How long a call waits for a locked database, in milliseconds. Default 5,000. */
  readonly busyMs?: number
  /** Default the machine's clock. */
  readonly clock?: Clock
}

interface SessionRow {
  readonly data: string
}

/** A request as far as express-session puts its session on it. */
interface SessionRequest {
  sessionID?: string
  session?: { cookie: { expires?: unknown; originalMaxAge?: unknown } }
}

type SessionClass = new (request: object, session: object) => NonNullable<SessionRequest['session']>
type CookieClass = new (cookie: object) => NonNullable<SessionRequest['session']>['cookie']

interface ExpressClasses {
  readonly Session: SessionClass
  readonly Cookie: CookieClass
}

const dayMs = 86_400_000
// How often at most what has expired is deleted.
const sweepMs = 60_000

/**
 * Keeps sessions in a SQLite file that all processes of a machine share. It is a store for
 * express-session as well: `session({ store: new SqliteSessionStore({ file }) })`.
 */
export class SqliteSessionStore extends EventEmitter implements SessionStore {
  readonly #client: SqliteClient
  readonly #clock: Clock
  readonly #expiryMs: number
  readonly #sql: Readonly<Record<'select' | 'upsert' | 'touch' | 'delete' | 'sweep', string>>
  #express: ExpressClasses | undefined
  #sweptAt = Number.NEGATIVE_INFINITY

  /** Set by express-session: gives a request a new session. */
  generate: (request: never) => void = () => {
    throw new ChannelkitError(
      'ERR_NOT_SUPPORTED',
      'a session can be made only through express-session; pass this store to session({ store })',
    )
  }

  /** @throws {ChannelkitError} `ERR_INVALID_CONFIG` */
  constructor(options: SqliteSessionStoreOptions) {
    super()
    const { file, driver, table = 'channelkit_session', busyMs = 5_000 } = options
    if (typeof file !== 'string' || file === '' || file.startsWith(':memory:')) {
      throw new ChannelkitError(
        'ERR_INVALID_CONFIG',
        `file is ${shown(file)}; give the path of a database file for the sessions`,
      )
    }
    if (!/^[A-Za-z0-9_]{1,40}$/.test(table)) {
      throw new ChannelkitError(
        'ERR_INVALID_CONFIG',
        `table is ${shown(table)}; give 1-40 of A-Z a-z 0-9 _`,
      )
    }
    this.#clock = options.clock ?? systemClock
    this.#expiryMs = options.expiryMs ?? dayMs
    this.#sql = {
      select: `SELECT data FROM ${table} WHERE sid = ? AND expires > ?`,
      upsert: `INSERT INTO ${table} (sid, data, expires) VALUES (?, ?, ?)
        ON CONFLICT (sid) DO UPDATE SET data = excluded.data, expires = excluded.expires`,
      touch: `UPDATE ${table} SET expires = ? WHERE sid = ? AND expires > ?`,
      delete: `DELETE FROM ${table} WHERE sid = ?`,
      sweep: `DELETE FROM ${table} WHERE expires <= ?`,
    }
    this.#client = new SqliteClient({
      file: resolve(file),
      driver,
      busyMs,
      preparation: { isMade: () => isMade(table), make: () => make(table) },
    })
  }

  /** `S` is what the caller knows its sessions to be. */
  get<S = StoredSession>(
    sid: string,
    callback: (error: unknown, session?: S | null) => void,
  ): void {
    this.#client
      .read(() => this.#read(sid))
      .then(
        (session) => callback(null, (session as S | undefined) ?? null),
        (error) => callback(error),
      )
  }

  set(sid: string, session: object, callback?: (error?: unknown) => void): void {
    answer(
      this.#client.write(() => this.#write(sid, session as StoredSession)),
      callback,
    )
  }

  destroy(sid: string, callback?: (error?: unknown) => void): void {
    answer(
      this.#client.write(() => change(this.#sql.delete, [sid])),
      callback,
    )
  }

  touch(sid: string, session: object, callback?: (error?: unknown) => void): void {
    answer(
      this.#client.write(() => this.#touch(sid, session as StoredSession)),
      callback,
    )
  }

  async update(
    sid: string,
    change: (current: StoredSession | undefined) => StoredSession | undefined,
  ): Promise<void> {
    const read = () => this.#read(sid)
    const write = (session: StoredSession) => this.#write(sid, session)
    await this.#client.write(function* () {
      const changed = change(yield* read())
      if (changed !== undefined) yield* write(changed)
    })
  }

  /** As in express-session: ends a request's session and gives it a new one. */
  regenerate(request: object, callback: (error?: unknown) => void): void {
    this.destroy((request as SessionRequest).sessionID ?? '', (error) => {
      this.generate(request as never)
      callback(error)
    })
  }

  /** As in express-session: reads a session and makes an object of its class of it. */
  load<S>(sid: string, callback: (error: unknown, session?: S) => void): void {
    this.get(sid, (error, session) => {
      if (error || !session) return callback(error)
      callback(null, this.createSession<S>({ sessionID: sid, sessionStore: this }, session))
    })
  }

  /** As in express-session: puts a stored session on a request. */
  createSession<S>(request: object, stored: object): S {
    const target = request as SessionRequest
    const { Session, Cookie } = this.#classes(target)
    const data = stored as NonNullable<SessionRequest['session']>
    const { expires, originalMaxAge } = data.cookie
    data.cookie = new Cookie(data.cookie)
    if (typeof expires === 'string') data.cookie.expires = new Date(expires)
    data.cookie.originalMaxAge = originalMaxAge
    target.session = new Session(request, data)
    return target.session as S
  }

  /** Closes the file. */
  close(): Promise<void> {
    return this.#client.close()
  }

  /** The classes of the express-session in use, which are told only by what it generates. */
  #classes(request: SessionRequest): ExpressClasses {
    if (this.#express) return this.#express
    const { sessionID } = request
    this.generate(request as never)
    if (sessionID !== undefined) request.sessionID = sessionID
    const { session } = request
    this.#express = {
      Session: session?.constructor as SessionClass,
      Cookie: session?.cookie.constructor as CookieClass,
    }
    return this.#express
  }

  *#read(sid: string): SqlWork<StoredSession | undefined> {
    const [row] = yield* rows<SessionRow>(this.#sql.select, [sid, this.#clock.now()])
    return row && parsed(row.data)
  }

  *#touch(sid: string, session: StoredSession): SqlWork<void> {
    yield* change(this.#sql.touch, [this.#expiryOf(session), sid, this.#clock.now()])
  }

  *#write(sid: string, session: StoredSession): SqlWork<void> {
    const now = this.#clock.now()
    if (now - this.#sweptAt >= sweepMs) {
      this.#sweptAt = now
      yield* change(this.#sql.sweep, [now])
    }
    const values = [sid, JSON.stringify(session), this.#expiryOf(session)]
    yield* change(this.#sql.upsert, values)
  }

  #expiryOf({ cookie }: StoredSession): number {
    const expires = cookie?.expires
    const now = this.#clock.now()
    if (!expires) return now + this.#expiryMs
    const at = new Date(expires).getTime()
    if (Number.isFinite(at)) return at
    throw new ChannelkitError(
      'ERR_INVALID_ARGUMENT',
      `a session is to be stored until ${shown(expires)}; give cookie.expires a date, or nothing`,
    )
  }
}

/** What is damaged is not shown: it may hold anything of a user. */
function parsed(data: string): StoredSession {
  try {
    return JSON.parse(data) as StoredSession
  } catch {
    throw new ChannelkitError(
      'ERR_SESSION_STORE',
      'a session in the database is no JSON; end it, or see what else writes to its table',
    )
  }
}

function answer(done: Promise<unknown>, callback: (error?: unknown) => void = () => {}): void {
  done.then(
    () => callback(),
    (error) => callback(error),
  )
}

function* isMade(table: string): SqlWork<boolean> {
  const found = yield* rows("SELECT name FROM sqlite_master WHERE type = 'table' AND name = ?", [
    table,
  ])
  return found.length > 0
}

function* make(table: string): SqlWork<void> {
  yield* change(
    `CREATE TABLE IF NOT EXISTS ${table} (
      sid TEXT PRIMARY KEY, data TEXT NOT NULL, expires INTEGER NOT NULL
    ) WITHOUT ROWID`,
    [],
  )
  yield* change(`CREATE INDEX IF NOT EXISTS ${table}_by_expiry ON ${table} (expires)`, [])
}
