import { outboxSign } from './outbox-sign.ts'
import type { OnChange, SqlClient, SqlWork } from './sql-client.ts'

// How often a process that waits for messages looks for those of a transaction whose process ended
// before it could see to them.
const lookMs = 500
// Processes that have the same sign look one after the other, as a rule, and find that all is done.
const spreadMs = 4

export interface OutboxMoverOptions {
  readonly client: SqlClient
  readonly hasOutbox: () => SqlWork<boolean>
  /** Runs a transaction that writes. */
  readonly move: () => Promise<void>
}

/** Sees to it that what lies in the outbox is moved though nobody writes. */
export class OutboxMover {
  readonly #options: OutboxMoverOptions
  #lookedAt = Number.NEGATIVE_INFINITY
  #timer: NodeJS.Timeout | undefined
  #isStopped = false

  constructor(options: OutboxMoverOptions) {
    this.#options = options
  }

  /** Told of a sign, or of a look by the clock. */
  readonly onSign: OnChange = (channels) => {
    if (channels?.has(outboxSign)) {
      this.#timer ??= setTimeout(() => this.#look(), Math.random() * spreadMs).unref()
    } else if (!channels && performance.now() - this.#lookedAt >= lookMs) {
      this.#look()
    }
  }

  /** Moves what this process knows to be there. */
  moveSoon(): void {
    if (this.#isStopped) return
    this.#options.client.expectOutbox?.()
    this.#options.move().catch(() => {
      // The database is away: whoever looks next will find it.
    })
  }

  stop(): void {
    this.#isStopped = true
    clearTimeout(this.#timer)
  }

  #look(): void {
    this.#timer = undefined
    this.#lookedAt = performance.now()
    const { client, hasOutbox } = this.#options
    client.read(hasOutbox).then(
      (hasSome) => {
        if (hasSome) this.moveSoon()
      },
      () => {
        // The database is away: the next look will do.
      },
    )
  }
}
