import { hostname } from 'node:os'
import type { ChannelBackend, Inbox } from '../backends/channel-backend.ts'
import { isChannelkitError } from '../errors.ts'
import { Backoff } from '../internal/backoff.ts'
import { repeat } from '../internal/clock.ts'
import { Counters } from '../internal/counters.ts'
import type { Logger } from '../logger.ts'
import { ConsumedChannels } from './consumed-channels.ts'
import { EventOutbox } from './event-outbox.ts'
import { Reply, type ReplyOwner } from './reply.ts'

const leaseMs = 30_000
// How often to look whether memberships are to be renewed: timers stand still while a machine sleeps.
const renewalLookMs = 1_000
// One turn of replies: bounds how long other sockets' input waits behind them.
const maxRepliesPerTurn = 1_000

/**
 * What the interface servers of one process share: the inbox on which replies arrive, the outbox
 * of events, the view of who consumes what, and the process's announcement.
 */
export class Hub {
  readonly backend: ChannelBackend
  readonly logger: Logger
  /** `dropped.<reason>`, `held.full` and what the servers count: see docs/operating.md. */
  readonly counters = new Counters()
  readonly outbox: EventOutbox
  readonly consumed: ConsumedChannels
  readonly #renewsGroups: boolean
  readonly #stopping = new AbortController()
  readonly #stops: (() => void)[] = []
  readonly #startedAt = Date.now()
  #inbox: Inbox<ReplyOwner> | undefined
  /** When memberships were last renewed; undefined when that is due at once. */
  #renewedAt: number | undefined
  #isRenewing = false
  #loop: Promise<void> | undefined
  /** Connections that have something to write, flushed together after each batch of replies. */
  #dirty: { flush(): void }[] = []

  constructor(options: {
    readonly backend: ChannelBackend
    readonly logger: Logger
    readonly renewal: 'auto' | 'manual'
  }) {
    this.backend = options.backend
    this.logger = options.logger
    this.#renewsGroups = options.renewal === 'auto'
    this.consumed = new ConsumedChannels(this.backend, this.logger)
    this.outbox = new EventOutbox(this.backend, this.counters, this.logger, (channel) =>
      this.consumed.isAbandoned(channel),
    )
  }

  get inbox(): Inbox<ReplyOwner> {
    if (!this.#inbox) throw new Error('the hub is used before start()')
    return this.#inbox
  }

  async start(): Promise<void> {
    const { clock, groupExpiryMs } = this.backend.limits
    const renewal = this.#renewsGroups ? 'auto' : 'manual'
    this.#inbox = await this.backend.openInbox<ReplyOwner>({ renewal })
    this.#renewedAt = clock.now()
    await this.#announce()
    await this.consumed.start()
    this.#stops.push(
      () => this.consumed.stop(),
      repeat(clock, () => this.#try('renew its announcement', this.#announce()), leaseMs / 3),
    )
    if (this.#renewsGroups) {
      this.#stops.push(
        repeat(
          clock,
          () => this.#try('renew its groups', this.#renewIfDue()),
          Math.min(groupExpiryMs / 3, renewalLookMs),
        ),
      )
    }
    this.#loop = this.#replyLoop()
  }

  /** Renews the memberships of every open connection, and records again what the backend lost. */
  async renew(): Promise<void> {
    await this.inbox.renew()
  }

  /** Renews when a third of the expiry is over by the clock, which may jump, or when told to. */
  async #renewIfDue(): Promise<void> {
    if (this.#isRenewing) return
    const { clock, groupExpiryMs } = this.backend.limits
    const now = clock.now()
    const sinceMs = now - (this.#renewedAt ?? Number.NEGATIVE_INFINITY)
    if (sinceMs >= 0 && sinceMs < groupExpiryMs / 3) return
    this.#isRenewing = true
    // Unless it succeeds it is due again with the next look.
    this.#renewedAt = undefined
    try {
      await this.renew()
      this.#renewedAt = now
    } finally {
      this.#isRenewing = false
    }
  }

  /** Writes what a connection has to write, once, after the replies that are being handed out. */
  flushLater(connection: { flush(): void }): void {
    this.#dirty.push(connection)
  }

  /** Ends the loop and forgets the inbox: to be called when every connection is closed. */
  async stop(): Promise<void> {
    for (const stop of this.#stops.splice(0)) stop()
    this.#stopping.abort()
    await this.#loop
    this.outbox.close()
    if (!this.#inbox) return
    try {
      const id = this.#id
      await this.#inbox.close()
      await this.backend.withdraw(id)
    } catch (error) {
      this.logger.debug(
        { err: error },
        'interface server could not withdraw; its lease will run out',
      )
    }
  }

  get #id(): string {
    return `interface.${this.inbox.name.slice('reply.'.length, -1)}`
  }

  #announce(): Promise<void> {
    return this.backend.announce(
      {
        id: this.#id,
        kind: 'interface',
        host: hostname(),
        pid: process.pid,
        startedAt: this.#startedAt,
        channels: [],
      },
      leaseMs,
    )
  }

  async #replyLoop(): Promise<void> {
    const { signal } = this.#stopping
    const backoff = new Backoff(this.backend.limits.clock, { firstMs: 50, longestMs: 500 })
    while (!signal.aborted) {
      try {
        const deliveries = await this.inbox.receive({
          max: maxRepliesPerTurn,
          // Asks once after a failure, or an outage would seem to last until something arrives.
          waitMs: backoff.isFailing ? 0 : Number.POSITIVE_INFINITY,
          signal,
        })
        for (const delivery of deliveries) {
          const isShared = delivery.group !== undefined
          const reply = new Reply(delivery.content, isShared)
          if (!isShared) delivery.owner.receive(reply)
          else for (const owner of delivery.owners) owner.receive(reply)
        }
        this.#flush()
        if (backoff.isFailing) {
          backoff.succeeded()
          this.logger.info({}, 'channel backend is back')
          this.#renewedAt = undefined
          if (this.#renewsGroups) this.#try('renew its groups', this.#renewIfDue())
        }
        // Sockets get their turn between full batches.
        if (deliveries.length >= maxRepliesPerTurn) await new Promise(setImmediate)
      } catch (error) {
        if (signal.aborted) return
        if (isChannelkitError(error, 'ERR_BACKEND_CLOSED')) return
        if (!backoff.isFailing) {
          this.logger.error({ err: error }, 'channel backend is away; sockets stay open')
        }
        await backoff.wait(signal)
      }
    }
  }

  #flush(): void {
    while (this.#dirty.length > 0) {
      const dirty = this.#dirty
      this.#dirty = []
      for (const connection of dirty) connection.flush()
    }
  }

  #try(what: string, work: Promise<void>): void {
    work.catch((error: unknown) => {
      this.logger.warn({ err: error }, `interface server could not ${what}`)
    })
  }
}
