import { type Listed, Roster } from './roster.ts'

interface Listener extends Listed {
  readonly call: () => void
}

const listeners = new WeakMap<AbortSignal, Roster<Listener>>()

/**
 * Calls `listener` once when `signal` aborts, until the returned function is called.
 *
 * For loops that wait on one long-lived signal again and again: the signal itself is listened to
 * once, since adding and removing its event listeners costs more than a message does.
 */
export function onAbort(signal: AbortSignal, listener: () => void): () => void {
  let roster = listeners.get(signal)
  if (!roster) {
    const created = new Roster<Listener>()
    roster = created
    listeners.set(signal, created)
    signal.addEventListener('abort', () => {
      for (const each of created.all()) {
        created.delete(each)
        each.call()
      }
    })
  }
  const mine = { call: listener, place: -1 }
  roster.add(mine)
  const all = roster
  return () => all.delete(mine)
}
