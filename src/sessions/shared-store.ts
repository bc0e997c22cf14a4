import { createHash } from 'node:crypto'
import { ChannelkitError, isChannelkitError } from '../errors.ts'
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
import { watchEnds } from './watched-store.ts'

export interface SharedStoreOptions {
  readonly store: SessionStore
  /** How long a call may take, in milliseconds. */
  readonly timeoutMs: number
  readonly clock: Clock
  /** Is told when the site has ended a session in this process. */
  readonly onEnded: (sid: string) => void
  /** Is told when other processes have kept on overwriting what was saved. */
  readonly onOverwritten: () => void
}

/** Replaces what is stored; undefined leaves it as it is. */
export type Change = (found: StoredSession | undefined) => StoredSession | undefined

// Under which what was written last is known; only in stores without `update`.
const versionsKey = 'channelkit:versions'
// So many writers may come between a write and the look at it.
const keptVersions = 8
const mostTries = 5
// Longer than any call to the store takes from reading to writing.
const endedMs = 60_000

// The last change under way of each key: for a store, since sites and tests may share one.
const changing = new WeakMap<SessionStore, Map<string, Promise<unknown>>>()

/**
 * A session store that several processes change. What one of them has ended, none brings back, and
 * what two save at once is merged: in one go by the store's own `update`; where it has none, by a
 * look at what became of each write, and by marks of what was ended.
 */
export class SharedStore {
  readonly #options: SharedStoreOptions
  readonly #store: SessionStore
  readonly #destroy: (sid: string) => Promise<void>
  readonly #unwatch: () => void

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

  /** Stops looking at what the site ends. */
  close(): void {
    this.#unwatch()
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
    for (let tries = 1; tries <= mostTries; tries++) {
      const found = await this.read(sid)
      const changed = change(found)
      if (!changed) return
      const version = randomName()
      changed[versionsKey] = [...versionsOf(found), version].slice(-keptVersions)
      await this.#answer('set', sid, writeSession(this.#store, sid, changed))
      if (await this.#endIfMarked(sid)) return
      // Whoever wrote since has either read this, or has written over it what it had read before.
      const current = await this.read(sid)
      if (!current || versionsOf(current).includes(version)) return
    }
    this.#options.onOverwritten()
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

  /** What a call to the store came to; neither endless, nor with the session's key in its error. */
  #answer<T>(call: string, sid: string, answer: Promise<T>): Promise<T> {
    const { clock, timeoutMs } = this.#options
    const name = nameOf(this.#store, call)
    return new Promise((resolve, reject) => {
      const cancel = clock.schedule(() => {
        const text = `${name} has not answered for ${timeoutMs} ms; see to the store, or raise session.storeTimeoutMs`
        reject(new ChannelkitError('ERR_SESSION_STORE', text))
      }, timeoutMs)
      answer.then(resolve, (error) => reject(storeError(name, sid, error))).finally(cancel)
    })
  }
}

function nameOf(store: SessionStore, call: string): string {
  const { name } = store.constructor
  return name === '' || name === 'Object' ? `${call} of the session store` : `${name}.${call}`
}

/** Begins as keys of channel sessions do, so that no client can name it. */
function markOf(sid: string): string {
  return `channel-ended-${createHash('sha256').update(sid).digest('base64url')}`
}

function versionsOf(session: StoredSession | undefined): readonly unknown[] {
  const versions = session?.[versionsKey]
  return Array.isArray(versions) ? versions : []
}

/** An error of a store without the key, by which whoever reads the log could sign in. */
function storeError(call: string, sid: string, error: unknown): ChannelkitError {
  if (isChannelkitError(error)) return error
  if (error instanceof SyntaxError) {
    const text = `${call} has found a session that is no JSON; end it, or see what writes to the store`
    return new ChannelkitError('ERR_SESSION_STORE', text)
  }
  const withoutKey = (text: string): string =>
    text.replaceAll(sid, '\u2026').replaceAll(encodeURIComponent(sid), '\u2026')
  const { message, stack } = error instanceof Error ? error : { message: String(error), stack: '' }
  // Not the error itself: drivers put their commands and paths on it.
  const cause = new Error(withoutKey(message))
  cause.stack = withoutKey(stack ?? '')
  const text = `${call} failed: ${withoutKey(message)}; see to the store`
  return new ChannelkitError('ERR_SESSION_STORE', text, { cause })
}
