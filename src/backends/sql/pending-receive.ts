import type { ChannelkitError } from '../../errors.ts'
import type { Clock } from '../../internal/clock.ts'
import type { HoldOptions, LineOptions, ReceiveOptions } from '../channel-backend.ts'
import type { SqlWork } from './sql-client.ts'
import type { Claimed, Transaction } from './transaction.ts'

/**
 * A receive that was called and has not ended. It ends by rows, by its time, by its signal or with
 * the backend; while a claim for it is under way, only after that, so that no row is lost by it.
 */
export class PendingReceive {
  readonly channels: readonly string[]
  readonly promise: Promise<readonly Claimed[]>
  /** Whether it ends with nothing when the first look finds nothing. */
  readonly #asksOnce: boolean
  readonly #max: number
  readonly #lines: LineOptions | undefined
  readonly #hold: HoldOptions | undefined
  readonly #signal: AbortSignal | undefined
  readonly #cancelTimer: (() => void) | undefined
  readonly #onEnd: (pending: PendingReceive) => void
  #resolve!: (claimed: readonly Claimed[]) => void
  #reject!: (error: unknown) => void
  #isEnded = false
  #isClaiming = false
  #claimed: Claimed[] = []
  /** What wanted to end it during a claim. */
  #end: (() => void) | undefined

  constructor(
    channels: readonly string[],
    { max, waitMs, signal, lines, hold }: ReceiveOptions,
    clock: Clock,
    onEnd: (pending: PendingReceive) => void,
  ) {
    this.channels = channels
    this.#max = max
    this.#lines = lines
    this.#hold = hold
    this.#asksOnce = waitMs === 0
    this.#signal = signal
    this.#onEnd = onEnd
    this.promise = new Promise((resolve, reject) => {
      this.#resolve = resolve
      this.#reject = reject
    })
    signal?.addEventListener('abort', this.#abort, { once: true })
    if (Number.isFinite(waitMs) && waitMs > 0) {
      this.#cancelTimer = clock.schedule(() => this.#endWith(() => this.#resolve([])), waitMs)
    }
  }

  get isEnded(): boolean {
    return this.#isEnded
  }

  /** Whether its claim has taken rows that it has not been given yet. */
  get hasClaimed(): boolean {
    return this.#claimed.length > 0
  }

  /** Takes rows; `channels` are those of its own that may have some. */
  *claim(transaction: Transaction, channels: readonly string[]): SqlWork<void> {
    this.#isClaiming = true
    this.#claimed = []
    // A random start: with a turn kept across calls, two callers could step past each other for ever.
    const turn = channels.length > 1 ? Math.floor(Math.random() * channels.length) : 0
    const kept = { lines: this.#lines, hold: this.#hold }
    yield* transaction.claim(this.#claimed, channels, this.#max, turn, kept)
  }

  /** The transaction of its claim has begun anew: nothing is taken. */
  undoClaim(): void {
    this.#isClaiming = false
    this.#claimed = []
  }

  /** What was looked for is committed, or nothing was there. */
  settle(): void {
    const claimed = this.#claimed
    this.undoClaim()
    if (this.#isEnded) return
    if (claimed.length > 0) this.#endWith(() => this.#resolve(claimed))
    else if (this.#end) this.#endWith(this.#end)
    else if (this.#asksOnce) this.#endWith(() => this.#resolve([]))
  }

  fail(error: unknown): void {
    this.undoClaim()
    this.#endWith(this.#end ?? (() => this.#reject(error)))
  }

  /** Ends it because the backend closes. */
  close(error: ChannelkitError): void {
    this.#endWith(() => this.#reject(error))
  }

  readonly #abort = (): void => {
    this.#endWith(() => this.#reject(this.#signal?.reason))
  }

  #endWith(end: () => void): void {
    if (this.#isEnded) return
    if (this.#isClaiming) {
      this.#end ??= end
      return
    }
    this.#isEnded = true
    this.#signal?.removeEventListener('abort', this.#abort)
    this.#cancelTimer?.()
    this.#onEnd(this)
    end()
  }
}
