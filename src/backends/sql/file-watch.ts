import { closeSync, type FSWatcher, openSync, utimesSync, watch } from 'node:fs'

// How long a sign that was lost can delay a message, and how often an idle process looks.
const pollMs = 750
// Where files cannot be watched. 20 looks a second are about 0.1 % of a core.
const pollUnwatchedMs = 50

/**
 * Gives those who watch the empty file a sign, by changing its time; makes it where it is missing.
 * A sign that cannot be given is left to their poll.
 */
export function touch(file: string): void {
  try {
    const now = Date.now() / 1_000
    try {
      utimesSync(file, now, now)
    } catch {
      closeSync(openSync(file, 'a'))
      utimesSync(file, now, now)
    }
  } catch {
    // The disk is full, or the directory is gone.
  }
}

/**
 * Tells when a file was touched, by any process.
 *
 * A file of its own, since one commit writes the database's own files some ten times, partly
 * before it can be seen, and taking messages writes them too.
 *
 * Many touches make one call of `onChange`, in the next turn of the event loop. The watch of the
 * system stays on while this is paused, since setting one up costs more than the signs it gives.
 */
export class FileWatch {
  readonly #file: string
  readonly #onChange: () => void
  #watcher: FSWatcher | undefined
  #poll: NodeJS.Timeout | undefined
  #isScheduled = false
  #isActive = false
  #isStopped = false

  constructor(file: string, onChange: () => void) {
    this.#file = file
    this.#onChange = onChange
  }

  resume(): void {
    this.#isActive = true
    if (!this.#watcher) this.#start()
    if (this.#poll) this.#poll.ref()
    else this.#setPoll()
  }

  pause(): void {
    this.#isActive = false
    this.#poll?.unref()
  }

  stop(): void {
    this.#isStopped = true
    this.#isActive = false
    clearTimeout(this.#poll)
    this.#unwatch()
  }

  #start(): void {
    if (this.#isStopped) return
    try {
      closeSync(openSync(this.#file, 'a'))
      this.#watcher = watch(this.#file, { persistent: false }, (event) => {
        // The file was removed: another one is to be watched.
        if (event === 'rename') this.#unwatch()
        this.#schedule()
      })
      this.#watcher.on('error', () => this.#unwatch())
      // Whatever came before the watch was on gave no sign.
      this.#schedule()
    } catch {
      // The directory is gone, or the system's watches are used up: the poll tries again.
      this.#watcher = undefined
    }
  }

  #unwatch(): void {
    this.#watcher?.close()
    this.#watcher = undefined
  }

  #schedule(): void {
    if (this.#isScheduled || !this.#isActive) return
    this.#isScheduled = true
    setImmediate(() => {
      this.#isScheduled = false
      if (this.#isActive) this.#onChange()
    })
  }

  #setPoll(): void {
    this.#poll = setTimeout(
      () => {
        this.#poll = undefined
        if (!this.#isActive) return
        if (!this.#watcher) this.#start()
        this.#setPoll()
        this.#onChange()
      },
      this.#watcher ? pollMs : pollUnwatchedMs,
    )
  }
}
