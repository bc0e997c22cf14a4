import type {
  ChannelBackend,
  HoldOptions,
  IncomingMessage,
  LineTurn,
} from './backends/channel-backend.ts'
import { ChannelkitError, isChannelkitError } from './errors.ts'
import { Backoff } from './internal/backoff.ts'
import type { Clock } from './internal/clock.ts'
import type { Logger } from './logger.ts'
import type { RunningTurn } from './message.ts'

/** One turn of a worker, from its message's arrival to the end of its consumer. */
export class HeldTurn implements RunningTurn {
  readonly place: TurnPlace
  readonly #clock: Clock
  #turn: LineTurn
  #beganAt: number
  #controller: AbortController | undefined
  /** Why it is lost, once it is. */
  #why: string | undefined
  #isOver = false

  constructor(turn: LineTurn, beganAt: number, place: TurnPlace, clock: Clock) {
    this.place = place
    this.#turn = turn
    this.#beganAt = beganAt
    this.#clock = clock
  }

  /** How long its consumer has run by now. */
  get ranMs(): number {
    return this.#clock.now() - this.#beganAt
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
      if (this.#why !== undefined) this.#abort()
    }
    this.#look()
    return this.#controller.signal
  }

  check(what: string): void {
    this.#look()
    if (this.#why !== undefined) throw this.#error(`${what}: `)
  }

  renewed(turn: LineTurn): void {
    this.#turn = turn
  }

  /** It lay here past its time, and is the worker's still: its consumer begins now. */
  takenUp(turn: LineTurn): void {
    this.#turn = turn
    this.#beganAt = this.#clock.now()
  }

  /** Its consumer has ended: what it left running may go on. */
  over(): void {
    this.#isOver = true
  }

  lose(why = 'has lapsed'): void {
    if (this.#why !== undefined) return
    this.#why = why
    this.#abort()
  }

  #look(): void {
    if (!this.#isOver && this.leftMs <= 0) this.lose()
  }

  #abort(): void {
    this.#controller?.abort(this.#error(''))
  }

  #error(what: string): ChannelkitError {
    const { consumer, channel } = this.place
    return new ChannelkitError(
      'ERR_LOCK_LOST',
      `${what}the turn of the linearized consumer ${consumer} on ${channel} ${this.#why}; stop, since the client\u2019s next message may be running`,
    )
  }
}

/** The consumer that has a turn, and the channel of its message. */
export interface TurnPlace {
  readonly consumer: string
  readonly channel: string
}

interface Ending {
  readonly held: HeldTurn
  readonly resolve: (next: IncomingMessage | undefined) => void
}

export interface HeldTurnsOptions {
  readonly backend: ChannelBackend
  readonly leaseMs: number
  /** How long a consumer runs before its turn is renewed no more, in milliseconds. */
  readonly maxTurnMs: number
  readonly logger: Logger
  /** Is told of a consumer that has run for so long. */
  readonly onOverrun: (held: HeldTurn) => void
  /** Holds the messages of some channels. */
  readonly hold?: HoldOptions | undefined
  /** The channels whose messages the worker takes now; none while it stops. */
  readonly channels: () => readonly string[]
}

/**
 * The turns a worker holds: renewed while their consumers run, for `maxTurnMs` at most, and passed
 * on at their ends, all that end in one go by one call.
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

  hold(turn: LineTurn, place: TurnPlace): HeldTurn {
    const beganAt = turn.expiresAt - this.#options.leaseMs
    const held = new HeldTurn(turn, beganAt, place, this.#clock)
    this.#held.add(held)
    this.#renewLater()
    return held
  }

  /** Whether the turn is still the worker's, asked of the backend: it lay here past its time. */
  async takesUp(held: HeldTurn): Promise<boolean> {
    const { backend, leaseMs } = this.#options
    const [renewed] = await backend.renewLines([held.turn], leaseMs)
    if (renewed) held.takenUp(renewed)
    else held.lose()
    return renewed !== undefined
  }

  /** Passes a turn on; the result is the line's next message, if it is for this worker. */
  end(held: HeldTurn): Promise<IncomingMessage | undefined> {
    held.over()
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
    const { backend, leaseMs, logger, channels, hold } = this.#options
    const backoff = new Backoff(this.#clock, { firstMs: 50, longestMs: 1_000 })
    for (;;) {
      try {
        const turns = helds.map(({ turn }) => turn)
        return await backend.advanceLines(turns, {
          channels: channels(),
          leaseMs,
          ...(hold && { hold }),
        })
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

  /**
   * Renews no more what has run too long. Its consumer hears of it while the lease still lasts, and
   * if it ends by then, the line goes on at once.
   */
  #giveUpLongest(): void {
    const { maxTurnMs, onOverrun } = this.#options
    for (const held of this.#held) {
      if (held.ranMs < maxTurnMs) continue
      this.#held.delete(held)
      held.lose(`has lasted for ${held.ranMs} ms, longer than worker.maxTurnMs (${maxTurnMs})`)
      onOverrun(held)
    }
  }

  async #renew(): Promise<void> {
    this.#giveUpLongest()
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
