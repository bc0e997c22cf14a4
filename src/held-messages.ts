import type {
  ChannelBackend,
  HeldMessage,
  IncomingMessage,
  Settlement,
  SettleOutcome,
} from './backends/channel-backend.ts'
import { isChannelkitError } from './errors.ts'
import { Backoff } from './internal/backoff.ts'
import type { Clock } from './internal/clock.ts'
import type { Logger } from './logger.ts'

/** What comes in the place of a message that is settled. */
export type Next = NonNullable<Settlement['next']>

interface Settling {
  readonly settlement: Settlement
  readonly resolve: (outcome: SettleOutcome) => void
}

export interface HeldMessagesOptions {
  readonly backend: ChannelBackend
  readonly leaseMs: number
  readonly logger: Logger
}

/**
 * The messages a worker has taken and not acknowledged: their holds are renewed while their consumers
 * run, and settled at their ends, all that end in one go by one call.
 */
export class HeldMessages {
  readonly #options: HeldMessagesOptions
  readonly #clock: Clock
  /** Token → the message, with its hold as it was renewed last. */
  readonly #held = new Map<string, HeldMessage>()
  #settling: Settling[] = []
  #stopRenewing: (() => void) | undefined

  constructor(options: HeldMessagesOptions) {
    this.#options = options
    this.#clock = options.backend.limits.clock
  }

  hold({ channel, hold }: IncomingMessage): void {
    if (!hold) return
    this.#held.set(hold.token, { channel, hold })
    this.#renewLater()
  }

  /** Ends a hold; `lost` as well when the backend was away until it had lapsed. */
  settle({ channel, hold }: IncomingMessage, next?: Next): Promise<SettleOutcome> {
    if (!hold) return Promise.resolve('settled')
    const settlement = { message: { channel, hold }, ...(next && { next }) }
    return new Promise((resolve) => {
      this.#settling.push({ settlement, resolve })
      // After all that ends together with it.
      if (this.#settling.length === 1) process.nextTick(() => void this.#settleAll())
    })
  }

  /** Ends the timer: to be called when no consumer runs, or none is waited for. */
  close(): void {
    this.#stopRenewing?.()
    this.#stopRenewing = undefined
  }

  async #settleAll(): Promise<void> {
    const settling = this.#settling
    this.#settling = []
    const outcomes = await this.#settleSome(settling.map(({ settlement }) => settlement))
    for (const [place, { settlement, resolve }] of settling.entries()) {
      const outcome = outcomes?.[place] ?? 'lost'
      if (outcome !== 'full') this.#held.delete(settlement.message.hold.token)
      resolve(outcome)
    }
  }

  /** All by one call or, when something in one of them can never be settled, each by its own. */
  async #settleSome(
    settlements: readonly Settlement[],
  ): Promise<readonly (SettleOutcome | undefined)[] | undefined> {
    try {
      return await this.#trySettle(settlements)
    } catch (error) {
      if (settlements.length === 1) {
        const message = 'a message could not be acknowledged; it comes again when its hold lapses'
        this.#options.logger.error({ err: error }, message)
        return undefined
      }
      const each = settlements.map((settlement) => this.#settleSome([settlement]))
      return (await Promise.all(each)).map((outcomes) => outcomes?.[0])
    }
  }

  /**
   * Tries for as long as the holds last; what then is not settled comes again.
   *
   * @throws {ChannelkitError} for what fails for ever.
   */
  async #trySettle(
    settlements: readonly Settlement[],
  ): Promise<readonly SettleOutcome[] | undefined> {
    const { backend, logger } = this.#options
    const backoff = new Backoff(this.#clock, { firstMs: 50, longestMs: 1_000 })
    for (;;) {
      try {
        return await backend.settle(settlements)
      } catch (error) {
        if (isChannelkitError(error) && error.category === 'programmer') throw error
        if (!backoff.isFailing) {
          logger.warn({ err: error }, 'messages could not be acknowledged; trying again')
        }
        const isOver = isChannelkitError(error, 'ERR_BACKEND_CLOSED')
        if (isOver || settlements.every(({ message }) => this.#leftMs(message) <= 0)) {
          return undefined
        }
        await backoff.wait()
      }
    }
  }

  #leftMs({ hold }: HeldMessage): number {
    const { expiresAt } = this.#held.get(hold.token)?.hold ?? hold
    return expiresAt - this.#clock.now()
  }

  /** One timer while any message is held, so that a short consumer costs none. */
  #renewLater(): void {
    if (this.#stopRenewing) return
    this.#stopRenewing = this.#clock.schedule(() => {
      this.#stopRenewing = undefined
      if (this.#held.size > 0) void this.#renew()
    }, this.#options.leaseMs / 3)
  }

  async #renew(): Promise<void> {
    this.#renewLater()
    const { backend, leaseMs, logger } = this.#options
    // One with more time left is looked at again before it lapses.
    const due = [...this.#held.values()].filter((each) => this.#leftMs(each) <= (leaseMs * 2) / 3)
    if (due.length === 0) return
    try {
      for (const renewed of await backend.renewHolds(due, leaseMs)) {
        const { token } = renewed.hold
        if (this.#held.has(token)) this.#held.set(token, renewed)
      }
    } catch (error) {
      logger.debug({ err: error }, 'holds could not be renewed')
    }
  }
}
