import { type Config, defineRouting, type Route, type WorkerSettings } from 'channelkit'
import { type AuthConfig, type SessionConfig, signCookie } from 'channelkit/sessions'
import { type ConnectOptions, TestSite } from 'channelkit/testing'
import { MemoryStore } from 'express-session'
import { readSession, type StoredSession, writeSession } from '../../src/sessions/session-store.ts'

export const secret = 'the secret of this test site'

const markPrefix = 'channel-ended-'

/** A test site with sessions in express-session's own memory store. */
export async function openSessionSite<Names extends string>(
  table: { readonly [Name in Names]: Route<Name> },
  options: {
    readonly session?: Partial<SessionConfig>
    readonly auth?: AuthConfig
    readonly mode?: Config['mode']
    readonly worker?: WorkerSettings
  } = {},
): Promise<SessionSite> {
  const store = new MemoryStore()
  const site = await TestSite.open({
    routing: defineRouting(table),
    session: { store, secret, ...options.session },
    ...(options.auth && { auth: options.auth }),
    ...(options.mode && { mode: options.mode }),
    ...(options.worker && { worker: options.worker }),
  })
  return new SessionSite(site, store)
}

class SessionSite {
  readonly test: TestSite
  readonly store: MemoryStore

  constructor(test: TestSite, store: MemoryStore) {
    this.test = test
    this.store = store
  }

  /** Opens a socket, as a browser that has the session's cookie when `sid` is given. */
  connect(path: string, sid?: string, options: ConnectOptions = {}) {
    const cookies: Record<string, string> =
      sid === undefined ? {} : { 'connect.sid': signCookie(sid, [secret]) }
    return this.test.connect(path, { cookies, ...options })
  }

  put(sid: string, data: Readonly<Record<string, unknown>>): Promise<void> {
    return writeSession(this.store, sid, { cookie: { originalMaxAge: null }, ...data })
  }

  read(sid: string): Promise<StoredSession | undefined> {
    return readSession(this.store, sid)
  }

  /** Every session in the store, by key; without the marks of those that have ended. */
  async all(): Promise<Readonly<Record<string, StoredSession>>> {
    const stored = await this.#stored()
    return Object.fromEntries(stored.filter(([key]) => !key.startsWith(markPrefix)))
  }

  /** How many sessions are marked as ended. */
  async endedCount(): Promise<number> {
    return (await this.#stored()).filter(([key]) => key.startsWith(markPrefix)).length
  }

  /** Ends a session as a process does that has nothing of Channelkit in it. */
  endElsewhere(sid: string): void {
    MemoryStore.prototype.destroy.call(this.store, sid)
  }

  #stored(): Promise<[string, StoredSession][]> {
    return new Promise((resolve, reject) => {
      this.store.all((error, sessions) => {
        if (error) reject(error)
        else resolve(Object.entries(sessions ?? {}) as unknown as [string, StoredSession][])
      })
    })
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.test.close()
  }
}
