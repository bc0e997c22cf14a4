import type { SessionStore } from './session-store.ts'

/** Who wants to know of sessions that the site ends in this process. */
export interface EndWatcher {
  /** Runs before a session is ended; a failure of it does not keep it from being ended. */
  before(sid: string): Promise<void>
  /** Runs after a session was ended. */
  after(sid: string): void
}

type Destroy = SessionStore['destroy']

interface WatchedStore {
  readonly destroy: Destroy
  readonly watchers: Set<EndWatcher>
}

const watched = new WeakMap<SessionStore, WatchedStore>()

/**
 * Watches the ends of sessions, by a `destroy` of the store in front of its own: stores of
 * express-session tell of none. The site's own app, sharing the store in this process, ends
 * sessions through it whichever way it signs out.
 *
 * @returns the store's own `destroy`, which no watcher hears of.
 */
export function watchEnds(
  store: SessionStore,
  watcher: EndWatcher,
): { readonly destroy: Destroy; readonly close: () => void } {
  const { destroy, watchers } = watched.get(store) ?? put(store)
  watchers.add(watcher)
  return { destroy, close: () => watchers.delete(watcher) }
}

function put(store: SessionStore): WatchedStore {
  const own = store.destroy.bind(store)
  const watchers = new Set<EndWatcher>()
  store.destroy = async (sid, callback) => {
    await Promise.allSettled([...watchers].map((watcher) => watcher.before(sid)))
    const after = (): void => {
      for (const watcher of watchers) watcher.after(sid)
    }
    // Without a callback some answer by a promise.
    if (!callback) {
      const answer = await own(sid)
      after()
      return answer
    }
    return own(sid, (error) => {
      if (!error) after()
      callback(error)
    })
  }
  const made = { destroy: own, watchers }
  watched.set(store, made)
  return made
}
