/** What a store keeps of a session: its data, and the `cookie` that says when it expires. */
export interface StoredSession {
  cookie?: {
    expires?: Date | string | null
    originalMaxAge?: number | null
  }
  [key: string]: unknown
}

/**
 * Where a site keeps its sessions: the Store interface of express-session, so that each of its
 * many stores will do, called from outside of Express.
 */
export interface SessionStore {
  get(sid: string, callback: (error: unknown, session?: object | null) => void): unknown
  set(sid: string, session: object, callback?: (error?: unknown) => void): unknown
  destroy(sid: string, callback?: (error?: unknown) => void): unknown
  touch?(sid: string, session: object, callback?: (error?: unknown) => void): unknown
  /**
   * Replaces a session by what `change` makes of it, with no other write in between, in this
   * process or another. Stores of express-session lack it; see docs/sessions.md for what that means.
   *
   * @param change - is given the session, or undefined when there is none, and returns what is to
   *   be stored, or undefined to leave things as they are. It may be called again.
   */
  update?(
    sid: string,
    change: (current: StoredSession | undefined) => StoredSession | undefined,
  ): Promise<void>
}

/** The session under a key; undefined when there is none. */
export function readSession(store: SessionStore, sid: string): Promise<StoredSession | undefined> {
  return new Promise((resolve, reject) => {
    settle(reject, () =>
      store.get(sid, (error, session) => {
        if (!error) resolve((session ?? undefined) as StoredSession | undefined)
        // A file store's way to say that there is none; express-session takes it so, too.
        else if (codeOf(error) === 'ENOENT') resolve(undefined)
        else reject(error)
      }),
    )
  })
}

/** Stores a session under a key. */
export function writeSession(
  store: SessionStore,
  sid: string,
  session: StoredSession,
): Promise<void> {
  return new Promise((resolve, reject) => {
    settle(reject, () =>
      store.set(sid, session, (error) => {
        if (error) reject(error)
        else resolve()
      }),
    )
  })
}

/** Puts the expiry of a session off, where the store can; one that is not there is fine. */
export function touchSession(
  store: SessionStore,
  sid: string,
  session: StoredSession,
): Promise<void> {
  return new Promise((resolve, reject) => {
    settle(reject, () => {
      if (!store.touch) return resolve()
      return store.touch(sid, session, (error?: unknown) => {
        if (error && codeOf(error) !== 'ENOENT') reject(error)
        else resolve()
      })
    })
  })
}

/** Ends a session; one that is not there is fine. */
export function destroySession(store: Pick<SessionStore, 'destroy'>, sid: string): Promise<void> {
  return new Promise((resolve, reject) => {
    settle(reject, () =>
      store.destroy(sid, (error) => {
        if (error && codeOf(error) !== 'ENOENT') reject(error)
        else resolve()
      }),
    )
  })
}

/** Calls a store; what it throws, and a promise of it that rejects, count as its answer. */
function settle(reject: (error: unknown) => void, call: () => unknown): void {
  try {
    const returned = call()
    if (returned instanceof Promise) returned.catch(reject)
  } catch (error) {
    reject(error)
  }
}

function codeOf(error: unknown): unknown {
  return typeof error === 'object' && error !== null && 'code' in error ? error.code : undefined
}
