import { createHash } from 'node:crypto'
import type { Clock } from '../internal/clock.ts'
import { randomName } from '../names.ts'
import {
  destroySession,
  readSession,
  type SessionStore,
  type StoredSession,
  touchSession,
  writeSession,
} from './session-store.ts'
import type { StoreAnswers } from './store-answers.ts'
import { watchEnds } from './watched-store.ts'

export interface SharedStoreOptions {
  readonly store: SessionStore
  readonly answers: StoreAnswers
  readonly clock: Clock
  /** Is told when the site has ended a session in this process. */
  readonly onEnded: (sid: string) => void
  /** Is told when what was saved was overwritten by other processes, and could not be saved again. */
  readonly onOverwritten: () => void
}

/** Replaces what is stored; undefined leaves it as it is. */
export type Change = (found: StoredSession | undefined) => StoredSession | undefined

// How many changes of each process are in a session; only in stores without `update`.
const countsKey = 'channelkit:counts'
// So many processes change one session within a moment.
const keptCounts = 16
const mostTries = 5
// Who has read a session writes it within this time, or may undo what others have changed since.
const settledMs = 500
// Longer than any call to the store takes from reading to writing.
const endedMs = 60_000

// The last change under way of each key: for a store, since sites and tests may share one.
const changing = new WeakMap<SessionStore, Map<string, Promise<unknown>>>()

/** A change of this process that another may still undo by writing what it had read before. */
interface MadeChange {
  readonly count: number
  readonly change: Change
  readonly madeAt: number
}

/**
 * A session store that several processes change. What one of them has ended, none brings back, and
 * what two save at once is merged: in one go by the store's own `update`; where it has none, by
 * looking for a while what became of each change and making it again, and by marks of what was ended.
 */
export class SharedStore {
  readonly #options: SharedStoreOptions
  readonly #store: SessionStore
  readonly #destroy: (sid: string) => Promise<void>
  readonly #unwatch: () => void
  readonly #name = randomName().slice(0, 8)
  #count = 0
  /** What this process has changed lately, by key, the oldest first. */
  readonly #made = new Map<string, MadeChange[]>()
  /** By key, how to call off the look at what has become of that. */
  readonly #looks = new Map<string, () => void>()

  constructor(options: SharedStoreOptions) {
    this.#options = options
    this.#store = options.store
    const { destroy, close } = watchEnds(options.store, {
      // With an atomic update nothing is written over what was ended.
      before: async (sid) => {
        if (!options.store.update) await this.#mark(sid, endedMs)
      },
      after: options.onEnded,
    })
    this.#destroy = (sid) => this.#answer('destroy', sid, destroySession({ destroy }, sid))
    this.#unwatch = close
  }

  /** Stops looking at what the site ends, and at what becomes of changes. */
  close(): void {
    this.#unwatch()
    for (const stopLooking of this.#looks.values()) stopLooking()
    this.#looks.clear()
  }

  read(sid: string): Promise<StoredSession | undefined> {
    return this.#answer('get', sid, readSession(this.#store, sid))
  }

  /** @throws what `change` throws; `ERR_SESSION_STORE` */
  async change(sid: string, change: Change): Promise<void> {
    if (!this.#store.update) return this.#inTurn(sid, () => this.#replace(sid, change))
    let isNew = false
    const noted: Change = (found) => {
      const changed = change(found)
      isNew = found === undefined && changed !== undefined
      return changed
    }
    await this.#answer('update', sid, this.#store.update(sid, noted))
    if (isNew) await this.#endIfMarked(sid)
  }

  /** Puts the expiry of a session off, by its cookie. */
  async touch(sid: string, session: StoredSession): Promise<void> {
    if (!this.#store.touch) return
    await this.#answer('touch', sid, touchSession(this.#store, sid, session))
    if (!this.#store.update) await this.#endIfMarked(sid)
  }

  /** Ends a session, and for a while each that is made under its key. */
  async end(sid: string, forMs: number): Promise<void> {
    await this.#mark(sid, forMs)
    await this.#destroy(sid)
  }

  async #replace(sid: string, change: Change): Promise<void> {
    const made = this.#made.get(sid) ?? []
    const count = ++this.#count
    const madeAt = this.#options.clock.elapsed()
    if (!(await this.#write(sid, [...made, { count, change, madeAt }]))) return
    if (!this.#looks.has(sid)) this.#lookLater(sid)
    this.#made.set(sid, [...made, { count, change: quiet(change), madeAt }])
    await this.#settle(sid)
  }

  /** Makes again what others have written over, until it is there to be seen. */
  async #settle(sid: string): Promise<void> {
    for (let tries = 1; tries <= mostTries; tries++) {
      if (!(await this.#write(sid, this.#made.get(sid) ?? []))) return
    }
    this.#made.delete(sid)
    this.#options.onOverwritten()
  }

  /**
   * Stores those of the changes that are not in the session. What has a process's count in it has all
   * of its changes up to that: whoever writes hands on the counts that it has read.
   *
   * @returns whether there was something to store, and the session is still there.
   */
  async #write(sid: string, made: readonly MadeChange[]): Promise<boolean> {
    const found = await this.read(sid)
    const counts = countsOf(found)
    const seen = counts.get(this.#name) ?? 0
    const missing = made.filter(({ count }) => count > seen)
    let changed: StoredSession | undefined
    for (const { change } of missing) changed = change(changed ?? found) ?? changed
    const last = missing.at(-1)
    if (!changed || !last) return false
    counts.delete(this.#name)
    counts.set(this.#name, last.count)
    changed[countsKey] = Object.fromEntries([...counts].slice(-keptCounts))
    await this.#answer('set', sid, writeSession(this.#store, sid, changed))
    return !(await this.#endIfMarked(sid))
  }

  /** Looks once more when nobody can be under way who has not seen the changes. */
  #lookLater(sid: string): void {
    const { clock } = this.#options
    const stopLooking = clock.schedule(() => {
      this.#looks.delete(sid)
      const look = this.#inTurn(sid, async () => {
        await this.#settle(sid)
        const made = this.#made.get(sid) ?? []
        const recent = made.filter(({ madeAt }) => clock.elapsed() - madeAt < settledMs)
        this.#made.delete(sid)
        if (recent.length === 0) return
        this.#made.set(sid, recent)
        if (!this.#looks.has(sid)) this.#lookLater(sid)
      })
      look.catch(() => {
        this.#made.delete(sid)
        this.#options.onOverwritten()
      })
    }, settledMs)
    this.#looks.set(sid, stopLooking)
  }

  /** Marks a key first, and ends it then: who writes in between sees the mark afterwards. */
  #mark(sid: string, forMs: number): Promise<void> {
    const expires = new Date(this.#options.clock.now() + forMs)
    const cookie = { path: '/', httpOnly: true, originalMaxAge: forMs, expires }
    const key = markOf(sid)
    return this.#answer('set', key, writeSession(this.#store, key, { cookie }))
  }

  async #endIfMarked(sid: string): Promise<boolean> {
    if (!(await this.read(markOf(sid)))) return false
    await this.#destroy(sid)
    return true
  }

  /** Runs changes of one key one after the other. */
  async #inTurn(key: string, task: () => Promise<void>): Promise<void> {
    const inStore = changing.get(this.#store) ?? new Map<string, Promise<unknown>>()
    changing.set(this.#store, inStore)
    const done = (inStore.get(key) ?? Promise.resolve()).then(task, task)
    inStore.set(key, done)
    try {
      await done
    } finally {
      if (inStore.get(key) === done) inStore.delete(key)
    }
  }

  #answer<T>(call: string, sid: string, answer: Promise<T>): Promise<T> {
    const { name } = this.#store.constructor
    const isNamed = name !== '' && name !== 'Object'
    const place = isNamed ? `${name}.${call}` : `${call} of the session store`
    return this.#options.answers.of(place, sid, answer)
  }
}

/** Begins as keys of channel sessions do, so that no client can name it. */
function markOf(sid: string): string {
  return `channel-ended-${createHash('sha256').update(sid).digest('base64url')}`
}

/** A change that is made again: what it has against it now keeps no other from being saved. */
function quiet(change: Change): Change {
  return (found) => {
    try {
      return change(found)
    } catch {
      return undefined
    }
  }
}

/** The counts in a session, of those who wrote last at the end. */
function countsOf(session: StoredSession | undefined): Map<string, number> {
  const counts = session?.[countsKey]
  const isObject = typeof counts === 'object' && counts !== null
  return new Map(isObject ? (Object.entries(counts) as [string, number][]) : [])
}
