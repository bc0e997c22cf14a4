import type { ChannelBackend, IncomingMessage, LineTurn } from './backends/channel-backend.ts'
import { ChannelkitError, isChannelkitError } from './errors.ts'
import { Backoff } from './internal/backoff.ts'
import type { Clock } from './internal/clock.ts'
import type { Logger } from './logger.ts'
import type { RunningTurn } from './message.ts'

/** One turn of a worker, from its message's arrival to the end of its consumer. */
export class HeldTurn implements RunningTurn {
  readonly #clock: Clock
  #turn: LineTurn
  #controller: AbortController | undefined
  #isLost = false

  constructor(turn: LineTurn, clock: Clock) {
    this.#turn = turn
    this.#clock = clock
  }

  get turn(): LineTurn {
    return this.#turn
  }

  /** How long it lasts from now on; 0 or less when it has lapsed. */
  get leftMs(): number {
    return this.#turn.expiresAt - this.#clock.now()
  }

  /** By the clock as well: a process that was stopped may ask before any timer of its own. */
  get signal(): AbortSignal {
    if (!this.#controller) {
      this.#controller = new AbortController()
      if (this.#isLost) this.#abort()
    }
    if (this.leftMs <= 0) this.lose()
    return this.#controller.signal
  }

  renewed(turn: LineTurn): void {
    this.#turn = turn
  }

  lose(): void {
    if (this.#isLost) return
    this.#isLost = true
    this.#abort()
  }

  #abort(): void {
    this.#controller?.abort(
      new ChannelkitError(
        'ERR_LOCK_LOST',
        'the turn of a linearized consumer has lapsed; stop, since the client\u2019s next message may be running',
      ),
    )
  }
}

interface Ending {
  readonly held: HeldTurn
  readonly resolve: (next: IncomingMessage | undefined) => void
}

export interface HeldTurnsOptions {
  readonly backend: ChannelBackend
  readonly leaseMs: number
  readonly logger: Logger
  /** The channels whose messages the worker takes now; none while it stops. */
  readonly channels: () => readonly string[]
}

/**
 * The turns a worker holds: renewed while their consumers run, and passed on at their ends, all
 * that end in one go by one call.
 */
export class HeldTurns {
  readonly #options: HeldTurnsOptions
  readonly #clock: Clock
  readonly #held = new Set<HeldTurn>()
  #ending: Ending[] = []
  #stopRenewing: (() => void) | undefined

  constructor(options: HeldTurnsOptions) {
    this.#options = options
    this.#clock = options.backend.limits.clock
  }

  hold(turn: LineTurn): HeldTurn {
    const held = new HeldTurn(turn, this.#clock)
    this.#held.add(held)
    this.#renewLater()
    return held
  }

  /** Whether the turn is still the worker's, asked of the backend: it lay here past its time. */
  async takesUp(held: HeldTurn): Promise<boolean> {
    const { backend, leaseMs } = this.#options
    const [renewed] = await backend.renewLines([held.turn], leaseMs)
    if (renewed) held.renewed(renewed)
    else held.lose()
    return renewed !== undefined
  }

  /** Passes a turn on; the result is the line's next message, if it is for this worker. */
  end(held: HeldTurn): Promise<IncomingMessage | undefined> {
    return new Promise((resolve) => {
      this.#ending.push({ held, resolve })
      // After all that ends together with it.
      if (this.#ending.length === 1) process.nextTick(() => void this.#endAll())
    })
  }

  /** Ends the timer: to be called when no consumer runs, or none is waited for. */
  close(): void {
    this.#stopRenewing?.()
    this.#stopRenewing = undefined
  }

  async #endAll(): Promise<void> {
    const endings = this.#ending
    this.#ending = []
    const { messages, lost } = await this.#advance(endings.map(({ held }) => held))
    for (const { held } of endings) this.#held.delete(held)
    // By line alone: of two turns of one line in a batch, the older is lost and gets nothing.
    const next = new Map<string, IncomingMessage>()
    for (const message of messages) if (message.turn) next.set(message.turn.line, message)
    const lapsed = new Set(lost.map(keyOf))
    for (const { held, resolve } of endings) {
      const { turn } = held
      resolve(lapsed.size > 0 && lapsed.has(keyOf(turn)) ? undefined : next.get(turn.line))
    }
  }

  /** Tries for as long as the turns last; what then is not passed on lapses. */
  async #advance(
    helds: readonly HeldTurn[],
  ): Promise<Awaited<ReturnType<ChannelBackend['advanceLines']>>> {
    const { backend, leaseMs, logger, channels } = this.#options
    const backoff = new Backoff(this.#clock, { firstMs: 50, longestMs: 1_000 })
    for (;;) {
      try {
        const turns = helds.map(({ turn }) => turn)
        return await backend.advanceLines(turns, { channels: channels(), leaseMs })
      } catch (error) {
        if (!backoff.isFailing) logger.warn({ err: error }, 'lines could not go on; trying again')
        const isOver = isChannelkitError(error, 'ERR_BACKEND_CLOSED')
        if (isOver || helds.every(({ leftMs }) => leftMs <= 0)) return { messages: [], lost: [] }
        await backoff.wait()
      }
    }
  }

  /** One timer while any turn is held, so that a short consumer costs none. */
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
    // A turn with more time left is looked at again before it lapses.
    const due = [...this.#held].filter(({ leftMs }) => leftMs <= (leaseMs * 2) / 3)
    if (due.length === 0) return
    try {
      const renewed = await backend.renewLines(
        due.map(({ turn }) => turn),
        leaseMs,
      )
      const byKey = new Map(renewed.map((turn) => [keyOf(turn), turn]))
      for (const held of due) {
        const turn = byKey.get(keyOf(held.turn))
        if (turn) held.renewed(turn)
        else if (this.#held.has(held)) held.lose()
      }
    } catch (error) {
      for (const held of due) if (held.leftMs <= 0) held.lose()
      logger.debug({ err: error }, 'turns could not be renewed')
    }
  }
}

function keyOf({ line, token }: LineTurn): string {
  return `${line} ${token}`
}
