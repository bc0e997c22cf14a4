import { ChannelkitError } from '../errors.ts'
import type { SessionStore, StoredSession } from './session-store.ts'

/** A session as a store has it, in a form that can be compared. */
export interface Found {
  readonly text: string
  readonly session: StoredSession
}

/** What a store can do to change a session without a lock. */
export interface Comparing {
  find(sid: string): Promise<Found | undefined>
  /**
   * Stores a session if what was found is there still, or, where nothing was, if nothing is.
   *
   * @returns whether it was.
   */
  replace(sid: string, found: Found | undefined, session: StoredSession): Promise<boolean>
}

const mostTries = 100

/** An `update` that changes a session by what was found, again for as long as others were faster. */
export function updateOf({ find, replace }: Comparing): NonNullable<SessionStore['update']> {
  return async (sid, change) => {
    for (let tries = 0; tries < mostTries; tries++) {
      const found = await find(sid)
      const changed = change(found && structuredClone(found.session))
      if (!changed || (await replace(sid, found, changed))) return
    }
    throw new ChannelkitError(
      'ERR_SESSION_STORE',
      `a session was changed by others at each of ${mostTries} tries to save it; wrap its consumers in linearize`,
    )
  }
}
