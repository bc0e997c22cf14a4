import { createHash } from 'node:crypto'
import { hostname } from 'node:os'
import type {
  ChannelBackend,
  HoldOptions,
  IncomingMessage,
  LineOptions,
} from './backends/channel-backend.ts'
import { longestDelayMs } from './backends/later.ts'
import { type ChannelDeclaration, validateContent } from './channel-types.ts'
import { type Consumer, consumerName, isLinearized } from './consumer.ts'
import { type Content, copyContent } from './content.ts'
import { deadLetterContent } from './dead-letters.ts'
import { type AfterRun, afterRunOf, retryDelay } from './delivery.ts'
import { ChannelkitError, isChannelkitError, shown } from './errors.ts'
import { HeldMessages, type Next } from './held-messages.ts'
import { type HeldTurn, HeldTurns } from './held-turns.ts'
import { Backoff } from './internal/backoff.ts'
import { type Clock, repeat } from './internal/clock.ts'
import { Counters } from './internal/counters.ts'
import { type Listed, Roster } from './internal/roster.ts'
import type { Logger } from './logger.ts'
import { silentLogger } from './logger.ts'
import { WorkerMessage, workBeyond } from './message.ts'
import { goneChannel, randomName } from './names.ts'
import { Requeue } from './requeue.ts'
import type { LoadedRouting } from './routing.ts'

/** How a worker runs; every number has a default. */
export interface WorkerSettings {
  /**
   * Most consumers that run at once, 1–10,000. A worker takes no more messages than it can begin at
   * once: one that is killed loses what it was running and what it had just taken, together at most
   * so many, and what waited in it for another try after `Requeue`, at most ten times so many.
   * Default 100.
   */
  readonly concurrency?: number
  /** Most times one message may be thrown back by `Requeue`, 0 or more. Default 10. */
  readonly maxRequeues?: number
  /**
   * Most answers of the view layer that may stream at once beside the consumers that run, 0 or more:
   * one more takes the place of a consumer. Default 10,000.
   */
  readonly maxStreams?: number
  /** How long `stop` waits for running consumers and streams, in milliseconds. Default 30,000. */
  readonly graceMs?: number
  /**
   * How long a linearized consumer's turn lasts unless renewed, which the worker does, in
   * milliseconds, 100–3,600,000: so long after a worker has died its clients' lines stand still.
   * Default 15,000.
   */
  readonly lineLeaseMs?: number
  /**
   * How long a linearized consumer may run before its turn is renewed no more, in milliseconds, from
   * `lineLeaseMs` to 86,400,000. Its `message.signal` is aborted then, and its client's line goes on
   * when it has ended, or after `lineLeaseMs` without it. Default 300,000, or `lineLeaseMs` where
   * that is longer.
   */
  readonly maxTurnMs?: number
  /**
   * How long a message on a channel with `acknowledge: 'afterRun'` is this worker's unless renewed,
   * which the worker does, in milliseconds, 100–3,600,000: so long after a worker has died its
   * messages come again. Default 15,000.
   */
  readonly holdLeaseMs?: number
  /** How long a dead letter lives, in milliseconds, 1,000–31,622,400,000. Default 14 days. */
  readonly deadLetterExpiryMs?: number
}

export interface WorkerOptions extends WorkerSettings {
  readonly backend: ChannelBackend
  readonly routing: LoadedRouting
  /** Declarations whose schemas messages are checked against before a consumer sees them. */
  readonly declaration?: (channel: string) => ChannelDeclaration | undefined
  readonly logger?: Logger
}

/** How long `stop` waits for running consumers unless told otherwise, in milliseconds. */
export const defaultGraceMs = 30_000

/** The channel whose messages a worker answers with themselves, as a probe that it lives. */
export const echoChannel = '__channels__.echo'

/** What workers consume without the site's doing. */
const ownChannels: ReadonlySet<string> = new Set([echoChannel, goneChannel])

const echo: Consumer = async (message) => {
  await message.replyChannel.send(message.content)
}

// Long enough to survive a busy event loop, short enough that a dead worker is soon not counted on.
const leaseMs = 30_000
// Workers that take messages by lines hear within this time which channels others take so.
const lookMs = 2_000
const firstRequeueMs = 100
const longestRequeueMs = 10_000
// So many messages wait in memory for another try, for each consumer that may run.
const parkedPerSlot = 10
// A worker whose consumers feed it without end lets sockets and timers have a turn this often.
const batchesPerTurn = 32

/**
 * Receives messages and runs their consumers, up to `concurrency` at once. Nothing a consumer does
 * ends it. Holds no state of any client, so it may be started and stopped at will.
 */
export class Worker {
  readonly id = `worker.${randomName()}`
  /**
   * `run`, `failed`, `requeued`, `retried`, `dead-lettered`, `acknowledged-late`, `handed-back`,
   * `overran`, and `dropped.<reason>` for `requeued-too-often`,
   * `requeue-failed`, `expired`, `no-consumer`, `invalid` and `turn-lapsed`.
   */
  readonly counters = new Counters()
  readonly #backend: ChannelBackend
  readonly #routes: ReadonlyMap<string, WorkerRoute>
  readonly #channels: readonly string[]
  readonly #logger: Logger
  readonly #clock: Clock
  readonly #concurrency: number
  readonly #maxRequeues: number
  readonly #maxStreams: number
  readonly #graceMs: number
  readonly #lineLeaseMs: number
  /** Those of its channels whose consumers are linearized. */
  readonly #linearized: readonly string[]
  readonly #turns: HeldTurns
  readonly #held: HeldMessages
  readonly #deadLetterExpiryMs: number
  /** What it acknowledges after the run, if anything. */
  readonly #hold: HoldOptions | undefined
  /** What it receives by lines, if anything. */
  #lines: LineOptions | undefined
  /** Channels that other workers linearize → when one was last seen to. */
  readonly #linearizedElsewhere = new Map<string, number>()
  readonly #stopping = new AbortController()
  /** Ends a wait for messages, to begin another: at the stop, and when `#lines` has changed. */
  #waiting = new AbortController()
  readonly #parked = new Set<Parked>()
  readonly #running = new Roster<Run>()
  /** Those whose messages do not fit their schemas, and never will. */
  readonly #unfit = new WeakSet<Run>()
  /** Answers that go on when their consumers have returned. */
  readonly #streams = new Roster<Stream>()
  #onSlotFree: (() => void) | undefined
  #onIdle: (() => void) | undefined
  #loop: Promise<void> | undefined
  #starting: Promise<void> | undefined
  #stopped: Promise<readonly RunningConsumer[]> | undefined
  #stopAnnouncing: (() => void) | undefined
  #stopLooking: (() => void) | undefined
  #batchesThisTurn = 0

  /** @throws {ChannelkitError} `ERR_INVALID_CONFIG` naming the setting and its value. */
  constructor(options: WorkerOptions) {
    this.#backend = options.backend
    const { declaration = () => undefined } = options
    this.#routes = new Map(
      [[echoChannel, echo] as const, ...options.routing].map(([channel, consumer]) => {
        const name = consumerName(consumer)
        const place = Object.freeze({ consumer: name, channel })
        const declared = declaration(channel)
        const afterRun = afterRunOf(channel, declared)
        return [channel, { channel, consumer, place, declaration: declared, afterRun }]
      }),
    )
    this.#channels = Object.freeze([...this.#routes.keys()])
    this.#logger = options.logger ?? silentLogger
    this.#clock = options.backend.limits.clock
    this.#concurrency = setting('concurrency', options.concurrency ?? 100, 1, 10_000)
    this.#maxRequeues = setting('maxRequeues', options.maxRequeues ?? 10, 0, 1_000_000)
    this.#maxStreams = setting('maxStreams', options.maxStreams ?? 10_000, 0, 1_000_000)
    this.#graceMs = setting('graceMs', options.graceMs ?? defaultGraceMs, 0, 86_400_000)
    this.#lineLeaseMs = setting('lineLeaseMs', options.lineLeaseMs ?? 15_000, 100, 3_600_000)
    const maxTurnMs = setting(
      'maxTurnMs',
      options.maxTurnMs ?? Math.max(300_000, this.#lineLeaseMs),
      this.#lineLeaseMs,
      86_400_000,
    )
    const holdLeaseMs = setting('holdLeaseMs', options.holdLeaseMs ?? 15_000, 100, 3_600_000)
    this.#deadLetterExpiryMs = setting(
      'deadLetterExpiryMs',
      options.deadLetterExpiryMs ?? 1_209_600_000,
      1_000,
      31_622_400_000,
    )
    const held = [...this.#routes.values()].filter(({ afterRun }) => afterRun)
    if (held.length > 0) {
      const channels = Object.freeze(held.map(({ channel }) => channel))
      this.#hold = { channels, leaseMs: holdLeaseMs }
    }
    this.#held = new HeldMessages({
      backend: this.#backend,
      leaseMs: holdLeaseMs,
      logger: this.#logger,
    })
    this.#linearized = Object.freeze(
      [...this.#routes.values()]
        .filter(({ consumer }) => isLinearized(consumer))
        .map(({ channel }) => channel),
    )
    if (this.#linearized.length > 0) {
      this.#lines = { channels: this.#linearized, leaseMs: this.#lineLeaseMs }
    }
    this.#turns = new HeldTurns({
      backend: this.#backend,
      leaseMs: this.#lineLeaseMs,
      maxTurnMs,
      logger: this.#logger,
      onOverrun: (overrun) => this.#noteOverrun(overrun),
      hold: this.#hold,
      channels: () => (this.#stopping.signal.aborted ? [] : this.#channels),
    })
  }

  /** The channels of its routing. */
  get channels(): readonly string[] {
    return this.#channels.filter((channel) => !ownChannels.has(channel))
  }

  /** How many consumers run now. */
  get runningCount(): number {
    return this.#running.size
  }

  /** The consumers that run now, and the channels of their messages. */
  get running(): readonly RunningConsumer[] {
    return [
      ...this.#running.all().map(({ route }) => ({ ...route.place })),
      ...this.#streams.all().map(({ at }) => ({ ...at })),
    ]
  }

  /**
   * Announces the worker and begins to receive. May be called again when it has failed.
   *
   * @throws {ChannelkitError} `ERR_BACKEND_UNAVAILABLE`, `ERR_BACKEND_CLOSED`
   */
  start(): Promise<void> {
    this.#starting ??= this.#start().catch((error: unknown) => {
      this.#starting = undefined
      throw error
    })
    return this.#starting
  }

  async #start(): Promise<void> {
    await this.#announce()
    if (this.#lines) await this.#lookElsewhere()
    if (this.#stopping.signal.aborted) return
    this.#stopAnnouncing = repeat(
      this.#clock,
      () => {
        this.#announce().catch((error: unknown) => {
          this.#logger.debug({ err: error }, 'worker could not renew its announcement')
        })
      },
      leaseMs / 3,
    )
    if (this.#lines) {
      this.#stopLooking = repeat(
        this.#clock,
        () => {
          this.#lookElsewhere().catch((error: unknown) => {
            this.#logger.debug({ err: error }, 'worker could not read the list of workers')
          })
        },
        lookMs,
      )
    }
    this.#loop = this.#receiveLoop()
  }

  /**
   * Takes no more messages, hands back what was taken and not begun, and waits for what runs.
   *
   * @returns the consumers still running after `graceMs`; empty when all ended.
   */
  stop(): Promise<readonly RunningConsumer[]> {
    this.#stopped ??= this.#stop()
    return this.#stopped
  }

  async #stop(): Promise<readonly RunningConsumer[]> {
    this.#stopping.abort()
    this.#waiting.abort()
    this.#onSlotFree?.()
    await this.#starting?.catch(() => {})
    await this.#loop
    this.#stopAnnouncing?.()
    this.#stopLooking?.()
    await Promise.all([...this.#parked].map((parked) => this.#resend(parked)))
    if (this.#running.size + this.#streams.size > 0) {
      await new Promise<void>((resolve) => {
        const cancel = this.#clock.schedule(resolve, this.#graceMs)
        this.#onIdle = () => {
          cancel()
          resolve()
        }
      })
    }
    this.#turns.close()
    this.#held.close()
    try {
      await this.#backend.withdraw(this.id)
    } catch (error) {
      this.#logger.debug({ err: error }, 'worker could not withdraw; its lease will run out')
    }
    return this.running
  }

  async #announce(): Promise<void> {
    await this.#backend.announce(
      {
        id: this.id,
        kind: 'worker',
        host: hostname(),
        pid: process.pid,
        startedAt: this.#startedAt,
        channels: this.#channels,
        ...(this.#lines && { linearized: this.#linearized }),
      },
      leaseMs,
    )
  }

  /** Learns which channels other workers take by lines and this one does not consume. */
  async #lookElsewhere(): Promise<void> {
    const now = this.#clock.now()
    for (const { linearized = [] } of await this.#backend.processes()) {
      for (const channel of linearized) {
        if (!this.#routes.has(channel)) this.#linearizedElsewhere.set(channel, now)
      }
    }
    // What waits for a worker that has gone keeps its place until it expires.
    for (const [channel, seenAt] of this.#linearizedElsewhere) {
      if (now - seenAt > this.#backend.limits.expiryMs) this.#linearizedElsewhere.delete(channel)
    }
    const elsewhere = [...this.#linearizedElsewhere.keys()]
    if (`${elsewhere}` === `${this.#lines?.elsewhere ?? ''}`) return
    this.#lines = { channels: this.#linearized, elsewhere, leaseMs: this.#lineLeaseMs }
    // A receive that waits already knows nothing of it.
    this.#waiting.abort()
    if (!this.#stopping.signal.aborted) this.#waiting = new AbortController()
  }

  readonly #startedAt = Date.now()

  async #receiveLoop(): Promise<void> {
    const { signal } = this.#stopping
    const backoff = new Backoff(this.#clock, { firstMs: 100, longestMs: 1_000 })
    while (!signal.aborted) {
      const free = this.#concurrency - this.#running.size
      if (free <= 0) {
        await this.#slotFree()
        continue
      }
      await this.#giveOthersATurn()
      const waiting = this.#waiting.signal
      try {
        const batch = await this.#backend.receive(this.#channels, {
          max: free,
          waitMs: Number.POSITIVE_INFINITY,
          signal: waiting,
          ...(this.#lines && { lines: this.#lines }),
          ...(this.#hold && { hold: this.#hold }),
        })
        if (backoff.isFailing) this.#logger.info({}, 'channel backend is back')
        backoff.succeeded()
        if (signal.aborted) await this.#handBack(batch)
        else {
          this.counters.add('run', batch.length)
          for (const incoming of batch) this.#begin(incoming)
        }
      } catch (error) {
        if (signal.aborted) return
        if (waiting.aborted) continue
        if (isChannelkitError(error, 'ERR_BACKEND_CLOSED')) {
          this.#logger.warn({ err: error }, 'worker ends, since its channel backend was closed')
          return
        }
        if (!backoff.isFailing) {
          this.#logger.error(
            { err: error },
            'channel backend is away; trying again until it is back',
          )
        }
        await backoff.wait(signal)
      }
    }
  }

  /** Resolves when a consumer has ended, together with all others that end in the same turn. */
  async #slotFree(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#onSlotFree = resolve
      if (this.#stopping.signal.aborted) resolve()
    })
    this.#onSlotFree = undefined
    await new Promise(setImmediate)
  }

  async #giveOthersATurn(): Promise<void> {
    if (this.#batchesThisTurn === 0) {
      setImmediate(() => {
        this.#batchesThisTurn = 0
      })
    }
    this.#batchesThisTurn++
    if (this.#batchesThisTurn > batchesPerTurn) await new Promise(setImmediate)
  }

  #begin(incoming: IncomingMessage): void {
    const route = this.#routes.get(incoming.channel)
    if (!route) {
      this.counters.add('dropped.no-consumer')
      return
    }
    const turn = incoming.turn && this.#turns.hold(incoming.turn, route.place)
    const { afterRun } = route
    if (afterRun && incoming.hold) {
      this.#held.hold(incoming)
      // A copy, since the consumer may change what it is given.
      const kept = { afterRun, content: copyContent(incoming.content) }
      void this.#run({ incoming, route, turn, kept, place: -1 })
    } else {
      void this.#run({ incoming, route, turn, kept: undefined, place: -1 })
    }
  }

  async #run(run: Run): Promise<void> {
    const { incoming, route, turn, kept } = run
    this.#running.add(run)
    let next: Next | undefined
    try {
      if (turn && turn.leftMs <= 0) await this.#takeUp(turn, kept !== undefined)
      if (kept && incoming.attempts >= kept.afterRun.maxAttempts) throw new Abandoned()
      if (route.declaration?.schema) {
        await this.#checkAndRun(run, route.declaration)
      } else {
        const message = new WorkerMessage(incoming, this.#backend, turn)
        await route.consumer(message)
        const work = workBeyond(message)
        if (work !== undefined) await this.#goOnBeyond(run, work)
      }
    } catch (error) {
      try {
        next = this.#fail(run, error)
      } catch (fault) {
        // What it threw cannot even be looked at: a proxy, a getter that throws.
        this.#logger.error({ err: fault, ...route.place }, 'a failure could not be described')
        if (kept) next = this.#nextOf(run, new Error('a failure could not be described'))
      }
    } finally {
      if (kept) await Promise.all([turn && this.#passOn(turn), this.#settle(run, next)])
      else if (turn) await this.#passOn(turn)
      this.#running.delete(run)
      this.#onSlotFree?.()
      this.#tellIfIdle()
    }
  }

  /** Goes on with a turn that lapsed before its consumer began, unless the line did meanwhile. */
  async #takeUp(turn: HeldTurn, comesAgain: boolean): Promise<void> {
    if (await this.#turns.takesUp(turn)) return
    if (!comesAgain) this.counters.add('dropped.turn-lapsed')
    throw new ChannelkitError(
      'ERR_LOCK_LOST',
      'a message waited in this worker until its turn had lapsed and the line went on; it is dropped',
    )
  }

  #noteOverrun({ place, turn, ranMs, leftMs }: HeldTurn): void {
    this.counters.add('overran')
    // Says which client it is, to who knows the reply channel, and to nobody else.
    const client = createHash('sha256').update(turn.line).digest('base64url').slice(0, 12)
    this.#logger.error(
      { ...place, client, ranMs },
      `${place.consumer} has had its client\u2019s turn on ${place.channel} for ${ranMs} ms; the client\u2019s next message runs in ${Math.max(0, leftMs)} ms, beside it if it has not ended: let it stop when message.signal is aborted, or raise worker.maxTurnMs`,
    )
  }

  /** Ends a turn, and begins the line's next message in the place of the one that ended. */
  async #passOn(turn: HeldTurn): Promise<void> {
    const next = await this.#turns.end(turn)
    if (!next) return
    if (this.#stopping.signal.aborted) {
      await this.#handBack([next])
    } else {
      this.counters.add('run')
      this.#begin(next)
    }
  }

  async #checkAndRun(run: Run, declaration: ChannelDeclaration): Promise<void> {
    const { incoming, turn } = run
    let content: IncomingMessage['content']
    try {
      content = await validateContent(incoming.channel, declaration, incoming.content)
    } catch (error) {
      if (!run.kept) this.counters.add('dropped.invalid')
      if (isChannelkitError(error, 'ERR_INVALID_CONTENT')) this.#unfit.add(run)
      throw error
    }
    const message = new WorkerMessage({ ...incoming, content }, this.#backend, turn)
    await run.route.consumer(message)
    const work = workBeyond(message)
    if (work !== undefined) await this.#goOnBeyond(run, work)
  }

  async #goOnBeyond(run: Run, work: Promise<void>): Promise<void> {
    if (this.#streams.size >= this.#maxStreams) {
      // One too many takes its place among the running until its end.
      await work
      return
    }
    const stream = { place: -1, at: run.route.place }
    this.#streams.add(stream)
    const settle = (): void => {
      this.#streams.delete(stream)
      this.#tellIfIdle()
    }
    work.then(settle, (error: unknown) => {
      settle()
      this.#fail(run, error)
    })
  }

  #tellIfIdle(): void {
    if (this.#running.size + this.#streams.size === 0) this.#onIdle?.()
  }

  /** Notes a failure; returns what comes in the place of a message that is held. */
  #fail(run: Run, error: unknown): Next | undefined {
    if (error instanceof Requeue) {
      if (run.kept) return this.#nextOf(run, error)
      this.#requeue(run, error)
    } else if (error instanceof Abandoned) {
      return this.#nextOf(run, error)
    } else {
      const place = run.route.place
      this.counters.add('failed')
      this.#logger.error(
        { err: error instanceof Error ? error : { message: shown(error) }, ...place },
        `consumer ${place.consumer} failed on ${place.channel}`,
      )
      if (run.kept) return this.#nextOf(run, error)
    }
    return undefined
  }

  /** Another try at a later time, or a dead letter. */
  #nextOf(run: Run, error: unknown): Next | undefined {
    const { incoming, route, kept } = run
    if (!kept) return undefined
    const { afterRun, content } = kept
    const now = this.#clock.now()
    const isRequeued = error instanceof Requeue
    const attempts = error instanceof Abandoned ? incoming.attempts : incoming.attempts + 1
    if (attempts < afterRun.maxAttempts && !this.#unfit.has(run)) {
      this.counters.add(isRequeued ? 'requeued' : 'retried')
      const delayMs = isRequeued ? error.delayMs : undefined
      const deliverAt = now + Math.min(delayMs ?? retryDelay(attempts, afterRun), longestDelayMs)
      const expiresAt = Math.max(incoming.expiresAt, deliverAt + this.#backend.limits.expiryMs)
      return { channel: incoming.channel, content, attempts, deliverAt, expiresAt }
    }
    const { channel } = route
    const letter = { channel, content, attempts, error: described(error), failedAt: now }
    return {
      channel: afterRun.deadLetterChannel,
      content: deadLetterContent(letter),
      expiresAt: now + this.#deadLetterExpiryMs,
    }
  }

  /** Acknowledges a message, or has another come in its place. */
  async #settle({ incoming, route, kept }: Run, next: Next | undefined): Promise<void> {
    if (!kept) return
    const isDeadLetter = next !== undefined && next.channel !== incoming.channel
    let outcome = await this.#held.settle(incoming, next)
    if (outcome === 'full') {
      this.#logger.error(
        { ...route.place },
        `a dead letter of ${route.channel} found ${next?.channel} full; it is tried again: replay dead letters, or raise its capacity`,
      )
      const { maxAttempts, ...afterRun } = kept.afterRun
      const deliverAt = this.#clock.now() + retryDelay(maxAttempts, { maxAttempts, ...afterRun })
      outcome = await this.#held.settle(incoming, {
        channel: incoming.channel,
        content: kept.content,
        attempts: maxAttempts,
        deliverAt,
        expiresAt: deliverAt + this.#deadLetterExpiryMs,
      })
    } else if (outcome === 'settled' && isDeadLetter) {
      this.counters.add('dead-lettered')
      this.#logger.warn({ ...route.place }, `a message of ${route.channel} is a dead letter now`)
    }
    if (outcome === 'lost') this.counters.add('acknowledged-late')
  }

  #requeue({ incoming, route }: Run, { delayMs }: Requeue): void {
    const place = route.place
    const attempts = incoming.attempts + 1
    if (attempts > this.#maxRequeues) {
      this.#dropRequeued('requeued-too-often', place, attempts)
      return
    }
    const waitMs = delayMs ?? Math.min(longestRequeueMs, firstRequeueMs * 2 ** incoming.attempts)
    if (this.#clock.now() + waitMs >= incoming.expiresAt) {
      this.#dropRequeued('expired', place, attempts)
      return
    }
    const { id, channel, content, expiresAt } = incoming
    const message = { id, channel, content, expiresAt, attempts }
    const parked: Parked = { message, place, retryMs: firstRequeueMs, cancel: () => {} }
    this.#parked.add(parked)
    // Beyond this many waiting in memory, the channel itself holds them.
    if (this.#stopping.signal.aborted || this.#parked.size > this.#concurrency * parkedPerSlot) {
      void this.#resend(parked)
    } else {
      parked.cancel = this.#clock.schedule(() => void this.#resend(parked), waitMs)
    }
  }

  #resend(parked: Parked): Promise<void> {
    parked.cancel()
    parked.sending ??= this.#tryResend(parked)
    return parked.sending
  }

  async #tryResend(parked: Parked): Promise<void> {
    const { message, place, retryMs } = parked
    try {
      await this.#sendAgain(message)
      this.counters.add('requeued')
    } catch (error) {
      const isAway = isChannelkitError(error, 'ERR_BACKEND_UNAVAILABLE')
      const isInTime = this.#clock.now() + retryMs < message.expiresAt
      if (isAway && isInTime && !this.#stopping.signal.aborted) {
        parked.sending = undefined
        parked.retryMs = Math.min(longestRequeueMs, retryMs * 2)
        parked.cancel = this.#clock.schedule(() => void this.#resend(parked), retryMs)
        return
      }
      this.counters.add('dropped.requeue-failed')
      this.#logger.error({ err: error, ...place }, `a requeued message of ${place.channel} is lost`)
    }
    this.#parked.delete(parked)
  }

  /** Sends a message behind all others of its channel, or where it was when that is full. */
  async #sendAgain(message: IncomingMessage): Promise<void> {
    const { channel, content, expiresAt, attempts } = message
    const [failure] = await this.#backend.send([{ channel, content, expiresAt, attempts }])
    if (!failure) return
    if (failure.error.code !== 'ERR_CHANNEL_FULL') throw failure.error
    await this.#backend.handBack([message])
  }

  #dropRequeued(reason: string, place: RunningConsumer, attempts: number): void {
    this.counters.add(`dropped.${reason}`)
    this.#logger.warn(
      { ...place, attempts },
      `a message of ${place.channel} is dropped: ${place.consumer} put it back ${attempts} times`,
    )
  }

  async #handBack(batch: readonly IncomingMessage[]): Promise<void> {
    if (batch.length === 0) return
    try {
      await this.#backend.handBack(batch)
      this.counters.add('handed-back', batch.length)
    } catch (error) {
      // Rather run them than lose them: the worker's end waits for them.
      this.#logger.warn({ err: error }, 'messages could not be handed back; running them')
      this.counters.add('run', batch.length)
      for (const incoming of batch) this.#begin(incoming)
    }
  }
}

/** A channel this worker consumes, with all it needs to run one message of it. */
interface WorkerRoute {
  readonly channel: string
  readonly consumer: Consumer
  readonly place: RunningConsumer
  readonly declaration: ChannelDeclaration | undefined
  readonly afterRun: AfterRun | undefined
}

/** One consumer at work on one message. */
interface Run extends Listed {
  readonly incoming: IncomingMessage
  readonly route: WorkerRoute
  readonly turn: HeldTurn | undefined
  /** Where it is acknowledged after the run, with the content as it came. */
  readonly kept: { readonly afterRun: AfterRun; readonly content: Content } | undefined
}

/** An answer that goes on when its consumer has returned. */
interface Stream extends Listed {
  readonly at: RunningConsumer
}

/** A message that waits for its next try after `Requeue`. */
interface Parked {
  readonly message: IncomingMessage
  readonly place: RunningConsumer
  /** How long to wait after the next try that meets no backend. */
  retryMs: number
  cancel: () => void
  sending?: Promise<void> | undefined
}

/** A consumer at work, and the channel of its message. */
export interface RunningConsumer {
  readonly consumer: string
  readonly channel: string
}

/** A message was begun as often as it may be, and its workers did not live to say how it ended. */
class Abandoned extends Error {
  override readonly name = 'Abandoned'

  constructor() {
    super('it was begun as often as it may be, and its workers died before they had ended')
  }
}

/** What a dead letter tells of an error. */
function described(error: unknown): { readonly name: string; readonly message: string } {
  if (error instanceof Requeue) {
    return { name: 'Requeue', message: 'its consumer put it back each time' }
  }
  const text = (value: unknown): string => shown(value).slice(0, 2_000)
  if (!(error instanceof Error)) return { name: 'Error', message: text(error) }
  const { name, message } = error
  return {
    name: String(name).slice(0, 200),
    message: String(message).slice(0, 2_000).toWellFormed(),
  }
}

function setting(name: string, value: number, min: number, max: number): number {
  if (Number.isInteger(value) && value >= min && value <= max) return value
  throw new ChannelkitError(
    'ERR_INVALID_CONFIG',
    `${name} is ${shown(value)}; give a whole number from ${min} to ${max}`,
  )
}
