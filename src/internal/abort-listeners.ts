const listeners = new WeakMap<AbortSignal, Set<() => void>>()

/**
 * Calls `listener` once when `signal` aborts, until the returned function is called.
 *
 * For loops that wait on one long-lived signal again and again: the signal itself is listened to
 * once, since adding and removing its event listeners costs more than a message does.
 */
export function onAbort(signal: AbortSignal, listener: () => void): () => void {
  let set = listeners.get(signal)
  if (!set) {
    const created = new Set<() => void>()
    set = created
    listeners.set(signal, created)
    signal.addEventListener('abort', () => {
      for (const each of [...created]) each()
      created.clear()
    })
  }
  const mine = set
  mine.add(listener)
  return () => mine.delete(listener)
}
