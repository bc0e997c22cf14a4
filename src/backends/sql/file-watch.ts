import { type FSWatcher, watch } from 'node:fs'

// How long a sign that was lost can delay a message, and how often an idle process looks.
const pollMs = 750
// Where files cannot be watched. 20 looks a second are about 0.1 % of a core.
const pollUnwatchedMs = 50
// SQLite makes a commit visible some microseconds after it has written the last byte to the file;
// a process that looked in between looks again so much later.
const lookAgainMs = 2

/**
 * Tells when a file has been written, by any process.
 *
 * Many writes make one call of `onChange`, in the next turn of the event loop. The watch of the
 * system stays on while it is paused, since setting one up costs more than the signs it gives.
 */
export class FileWatch {
  readonly #file: () => string
  readonly #onChange: () => void
  #watcher: FSWatcher | undefined
  #poll: NodeJS.Timeout | undefined
  #again: NodeJS.Timeout | undefined
  #isScheduled = false
  #isActive = false
  #isStopped = false

  constructor(file: () => string, onChange: () => void) {
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
    clearTimeout(this.#again)
    this.#unwatch()
  }

  #start(): void {
    if (this.#isStopped) return
    try {
      this.#watcher = watch(this.#file(), { persistent: false }, (event) => {
        // The file was removed or replaced: another one is to be watched.
        if (event === 'rename') this.#unwatch()
        this.#schedule()
      })
      this.#watcher.on('error', () => this.#unwatch())
      // Whatever came before the watch was on gave no sign.
      this.#schedule()
    } catch {
      // The file is not there yet, or the system's watches are used up: the poll tries again.
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
      if (!this.#isActive) return
      this.#again ??= setTimeout(() => {
        this.#again = undefined
        if (this.#isActive) this.#onChange()
      }, lookAgainMs).unref()
      this.#onChange()
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
