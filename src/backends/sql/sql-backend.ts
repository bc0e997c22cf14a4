import type { Content } from '../../content.ts'
import { ChannelkitError } from '../../errors.ts'
import { repeat } from '../../internal/clock.ts'
import { Counters } from '../../internal/counters.ts'
import {
  channelNameFault,
  groupNameFault,
  inboxOf,
  isReplyChannel,
  randomName,
  workChannelNameFault,
} from '../../names.ts'
import type {
  AdvancedLines,
  AdvanceOptions,
  BackendLimits,
  BackendOptions,
  BatchMark,
  ChannelBackend,
  ChannelInfo,
  HeldMessage,
  Inbox,
  InboxOptions,
  IncomingMessage,
  LineTurn,
  Membership,
  OutgoingMessage,
  ProcessInfo,
  ReceiveOptions,
  SendFailure,
  SendOptions,
  Settlement,
  SettleOutcome,
} from '../channel-backend.ts'
import { checkReceive } from '../check-receive.ts'
import { type Encoded, encodeContent } from '../codec.ts'
import { ContentCodec } from '../content-codec.ts'
import type { EncryptionOptions } from '../content-seal.ts'
import {
  checkMemberships,
  checkNumber,
  closedError,
  copyMembership,
  lineFullError,
  ours,
} from '../faults.ts'
import { checkId, delayedFullError, laterOf, lookMs, mostPerLook } from '../later.ts'
import { resolveLimits } from '../limits.ts'
import { LookTimer } from '../look-timer.ts'
import { readProcessInfo } from '../process-info.ts'
import { type InboxEntry, type InboxTransport, ReplyInbox } from '../reply-inbox.ts'
import { ClaimQueue, type ClaimQueueOptions } from './claim-queue.ts'
import type { MessageRow, SqlDialect } from './dialect.ts'
import { OutboxMover } from './outbox-mover.ts'
import { PendingReceive } from './pending-receive.ts'
import {
  groupKey,
  groupOfKey,
  isSchemaMade,
  lineKey,
  makeSchema,
  neverMs,
  rowKind,
  tableNames,
  textOf,
} from './schema.ts'
import {
  change,
  rows,
  type SqlClient,
  type SqlPreparation,
  type SqlWork,
  UnknownCommit,
} from './sql-client.ts'
import { SqlLater } from './sql-later.ts'
import { SqlLines } from './sql-lines.ts'
import { SqlOutbox } from './sql-outbox.ts'
import { Statements } from './statements.ts'
import {
  type Claimed,
  type EncodedMessage,
  type EncodedSettlement,
  type MovedOutcome,
  type Outcome,
  Transaction,
} from './transaction.ts'
import { TurnQueue } from './turn-queue.ts'

/** What a database is given to {@link SqlBackend} as. */
export interface SqlBackendSetup {
  readonly dialect: SqlDialect
  readonly tablePrefix: string
  /** The schema its tables stand in, where a database has several. */
  readonly schema?: string
  /** Whether missing tables are made on first use. Default true. */
  readonly mayMigrate?: boolean
  readonly encryption?: EncryptionOptions | undefined
  /** Makes the client, which runs `preparation` on each new connection. */
  readonly connect: (preparation: SqlPreparation) => SqlClient
}

// An inbox is forgotten so many times the longest expiry after its process was last heard of: a
// process that was stopped for a while finds it again, and what a crashed one left goes.
const inboxLeaseExpiries = 3
// How often a lease is renewed and expired rows are looked for, as a part of the shortest expiry.
const maintenanceShare = 0.5
// So short is one transaction of the clean-up that nobody waits for it.
const cleanUpBatch = 500
// So many memberships are recorded again in one transaction, about 3 ms.
const recordBatch = 1_000
// How soon memberships are recorded again that a lost database knew, after a failure.
const retryRecordMs = 500

const noFailures: readonly SendFailure[] = Object.freeze([])

/**
 * Carries messages through the tables of a SQL database, described in `schema.ts`.
 *
 * Everything that writes goes through the {@link TurnQueue}, which makes one transaction of what
 * is called in one turn of the event loop. Content is encoded when a call is made and decoded
 * after the commit.
 */
export class SqlBackend implements ChannelBackend, InboxTransport {
  readonly supports = Object.freeze({ multipleProcesses: true })
  readonly limits: BackendLimits
  readonly counters = new Counters()
  readonly transactional: SqlOutbox
  readonly #mover: OutboxMover
  readonly #codec: ContentCodec
  readonly #statements: Statements
  readonly #client: SqlClient
  readonly #queue: TurnQueue
  /** Claims of receives without lines, where they go on beside writes. */
  readonly #claims: ClaimQueue | undefined
  #mayMigrate: boolean
  readonly #lines: SqlLines
  readonly #later: SqlLater
  /** Channel that others take by lines → the last row of it that was lined up from here. */
  #seenElsewhere: ReadonlyMap<string, number> = new Map()
  readonly #looks: LookTimer
  /** Whether anything is received by lines from here. */
  #looksAtLines = false
  /** This process's inboxes, by name. */
  readonly #inboxes = new Map<string, ReplyInbox<unknown>>()
  readonly #inboxLeaseMs: number
  /** Sender → its last marked batch, when it is not known whether that was stored. */
  readonly #unknown = new Map<
    string,
    Pick<UnknownCommit, 'wasStored'> & {
      readonly number: number
      readonly outcomes: readonly Outcome[]
    }
  >()
  #isClosed = false
  #closing: Promise<void> | undefined
  #cleaning: Promise<void> | undefined
  /** How many messages were deleted by `cleanUp`. */
  #deleted = 0
  #stopMaintenance: (() => void) | undefined

  /** @throws {ChannelkitError} `ERR_INVALID_CONFIG` */
  constructor(options: BackendOptions, setup: SqlBackendSetup) {
    const { dialect, tablePrefix, schema, connect, encryption } = setup
    this.#codec = new ContentCodec(this.counters, encryption)
    this.limits = resolveLimits(options)
    this.#statements = new Statements(dialect, tableNames(tablePrefix, schema))
    this.#mayMigrate = setup.mayMigrate ?? true
    const { expiryMs, groupExpiryMs } = this.limits
    this.#inboxLeaseMs = inboxLeaseExpiries * Math.max(expiryMs, groupExpiryMs)
    this.#client = connect({ isMade: () => this.#isPrepared(), make: () => this.#prepare() })
    const tokenPrefix = randomName()
    let tokens = 0
    const newToken = () => `${tokenPrefix}.${++tokens}`
    this.#lines = new SqlLines(this.#statements, this.#codec, newToken)
    const hasOutbox = () => this.#hasOutbox()
    this.#mover = new OutboxMover({
      client: this.#client,
      hasOutbox,
      move: () => this.#queue.write(0, noWork),
    })
    this.#later = new SqlLater(this.#statements, newToken)
    this.#looks = new LookTimer({ clock: this.limits.clock, look: () => this.#look() })
    this.transactional = new SqlOutbox({
      client: this.#client,
      statements: this.#statements,
      later: this.#later,
      lookBy: (time) => this.#looks.by(time),
      codec: this.#codec,
      limits: this.limits,
      open: () => this.open(),
      fullError: (channel) => this.#fullError(channel),
      onCommit: () => {
        this.#mover.moveSoon()
        this.#startMaintenance()
      },
    })
    const shared = {
      onSign: this.#mover.onSign,
      statements: this.#statements,
      newTransaction: () =>
        new Transaction(
          this.#statements,
          this.#lines,
          this.#later,
          this.limits,
          this.#seenElsewhere,
        ),
    }
    this.#queue = new TurnQueue({
      ...shared,
      client: this.#client,
      hasOutbox,
      moveOutbox: (transaction) => transaction.moveOutbox(this.#codec),
      onCommit: (committed) => {
        const { expiredCount, lapsedCount, redeliveredCount, movedOutcomes } = committed
        const { seenElsewhere, writtenChannels } = committed
        this.#countMoved(movedOutcomes)
        this.#count('redelivered', redeliveredCount)
        this.#count('dropped.expired', expiredCount)
        this.#count('lapsed', lapsedCount)
        this.#seenElsewhere = seenElsewhere
        if (writtenChannels.size > 0) this.#claims?.lookFor(writtenChannels)
      },
    })
    if (claimsBeside(this.#client)) {
      this.#claims = new ClaimQueue({
        ...shared,
        client: this.#client,
        onCommit: ({ expiredCount }) => this.#count('dropped.expired', expiredCount),
      })
    }
  }

  async open(): Promise<void> {
    this.#checkOpen()
    await this.#client.read(() => this.#isPrepared())
  }

  /** Makes the tables or brings them up to date, whatever `migrate` says. */
  async migrate(): Promise<void> {
    this.#mayMigrate = true
    await this.open()
  }

  async send(
    messages: readonly OutgoingMessage[],
    { mark }: SendOptions = {},
  ): Promise<readonly SendFailure[]> {
    this.#checkOpen()
    const failures: SendFailure[] = []
    const encoded: EncodedMessage[] = []
    /** Place in `encoded` → place in `messages`. */
    const places: number[] = []
    for (let index = 0; index < messages.length; index++) {
      try {
        encoded.push(this.#encodedMessage(messages[index] as OutgoingMessage))
        places.push(index)
      } catch (error) {
        failures.push({ index, error: ours(error) })
      }
    }
    if (encoded.length === 0) return failures.length > 0 ? failures : noFailures
    const outcomes = await this.#store(encoded, mark)
    this.#startMaintenance()
    for (const { later } of encoded) if (later) this.#looks.by(later.deliverAt)
    let sent = 0
    for (let place = 0; place < outcomes.length; place++) {
      const { channel } = encoded[place] as EncodedMessage
      if (outcomes[place] === 'full') {
        failures.push({ index: places[place] as number, error: this.#fullError(channel) })
      } else if (outcomes[place] === 'line-full') {
        const error = lineFullError(channel, this.limits.lineCapacity)
        failures.push({ index: places[place] as number, error })
      } else if (outcomes[place] === 'delayed-full') {
        const error = delayedFullError(channel, this.limits.delayedCapacity)
        failures.push({ index: places[place] as number, error })
      } else {
        sent++
      }
    }
    this.#count('sent', sent)
    this.#countDrops(outcomes)
    if (failures.length === 0) return noFailures
    return failures.sort((a, b) => a.index - b.index)
  }

  async receive(
    channels: readonly string[],
    options: ReceiveOptions,
  ): Promise<readonly IncomingMessage[]> {
    this.#checkOpen()
    checkReceive(channels, options)
    this.#looks.atLeastEvery(lookMs)
    if (options.lines) {
      this.#looksAtLines = true
      this.#looks.atLeastEvery(options.lines.leaseMs)
    }
    return this.#messages(await this.#receive(channels, options))
  }

  async advanceLines(turns: readonly LineTurn[], options: AdvanceOptions): Promise<AdvancedLines> {
    this.#checkOpen()
    const kept = [...turns]
    const { channels, leaseMs, hold } = options
    const { next, lost } = await this.#queue.write(kept.length, (transaction) =>
      transaction.advanceLines(kept, { channels, leaseMs, ...(hold && { hold }) }),
    )
    const claimed = next.map((row) => ({ channel: row.channel, rows: [row] }))
    return { messages: this.#messages(claimed), lost }
  }

  async renewLines(turns: readonly LineTurn[], leaseMs: number): Promise<readonly LineTurn[]> {
    this.#checkOpen()
    const kept = [...turns]
    return this.#queue.write(kept.length, (transaction) => transaction.renewLines(kept, leaseMs))
  }

  async handBack(messages: readonly IncomingMessage[]): Promise<void> {
    this.#checkOpen()
    if (messages.length === 0) return
    const back = messages.map(({ id, channel, content, expiresAt, attempts }) => {
      checkNumber('id', id)
      // It was let in once; a smaller limit of this process must not lose it.
      const encoded = this.#codec.encode(content, Number.POSITIVE_INFINITY, `c:${channel}`)
      return [id, channel, rowKind.work, null, encoded, expiresAt, attempts]
    })
    const marks = messages.map(({ channel, turn, hold }) => ({
      channel,
      ...(turn && { turn }),
      ...(hold && { hold }),
    }))
    await this.#queue.write(back.length, (transaction) => transaction.handBack(back, marks))
  }

  async cancel(channel: string, ids: readonly string[]): Promise<readonly boolean[]> {
    this.#checkOpen()
    const fault = workChannelNameFault(channel)
    if (fault) throw fault
    const kept = [...ids]
    for (const id of kept) checkId(id)
    return this.#queue.write(kept.length, (transaction) => transaction.cancel(channel, kept))
  }

  async settle(settlements: readonly Settlement[]): Promise<readonly SettleOutcome[]> {
    this.#checkOpen()
    if (settlements.length === 0) return []
    const encoded = settlements.map((settlement) => this.#encodedSettlement(settlement))
    const outcomes = await this.#queue.write(encoded.length, (transaction) =>
      transaction.settle(encoded),
    )
    for (const { next } of encoded) {
      if (next?.deliverAt !== undefined) this.#looks.by(next.deliverAt)
    }
    return outcomes
  }

  async renewHolds(
    messages: readonly HeldMessage[],
    leaseMs: number,
  ): Promise<readonly HeldMessage[]> {
    this.#checkOpen()
    if (messages.length === 0) return []
    const kept = [...messages]
    return this.#queue.write(kept.length, (transaction) => transaction.renewHolds(kept, leaseMs))
  }

  async openInbox<Owner>(options?: InboxOptions): Promise<Inbox<Owner>> {
    this.#checkOpen()
    const inbox = new ReplyInbox<Owner>(this, this.limits, this.counters, options)
    this.#inboxes.set(inbox.name, inbox as ReplyInbox<unknown>)
    try {
      await this.#queue.write(1, () => this.#renewLeases([inbox.name]))
    } catch (error) {
      this.#inboxes.delete(inbox.name)
      throw error
    }
    this.#startMaintenance()
    return inbox
  }

  async groupAdd(memberships: readonly Membership[]): Promise<void> {
    this.#checkOpen()
    checkMemberships(memberships)
    const kept = memberships.map(copyMembership)
    await this.#queue.write(kept.length, (transaction) => transaction.groupAdd(kept))
    this.#startMaintenance()
  }

  async groupDiscard(memberships: readonly Membership[]): Promise<void> {
    this.#checkOpen()
    checkMemberships(memberships)
    const kept = memberships.map(copyMembership)
    await this.#queue.write(kept.length, (transaction) => transaction.groupDiscard(kept))
  }

  async groupSend(
    messages: readonly { readonly group: string; readonly content: Content }[],
  ): Promise<readonly SendFailure[]> {
    this.#checkOpen()
    const failures: SendFailure[] = []
    const encoded: { readonly group: string; readonly encoded: Encoded }[] = []
    for (let index = 0; index < messages.length; index++) {
      const { group, content } = messages[index] as (typeof messages)[number]
      try {
        const fault = groupNameFault(group)
        if (fault) throw fault
        encoded.push({ group, encoded: encodeContent(content, this.limits.maxContentBytes) })
      } catch (error) {
        failures.push({ index, error: ours(error) })
      }
    }
    if (encoded.length > 0) {
      const codec = this.#codec
      const outcomes = await this.#queue.write(encoded.length, function* (transaction) {
        const found: Outcome[] = []
        for (const message of encoded) {
          found.push(...(yield* transaction.groupSend(message.group, message.encoded, codec)))
        }
        return found
      })
      this.#startMaintenance()
      this.#countDrops(outcomes)
    }
    return failures.length > 0 ? failures : noFailures
  }

  async groupChannels(group: string): Promise<readonly string[]> {
    this.#checkOpen()
    const fault = groupNameFault(group)
    if (fault) throw fault
    const found = await this.#read<{ readonly channel: string }>(
      `SELECT channel FROM ${this.#statements.tables.membership}
       WHERE group_name = ? AND expires_at > ?`,
      [groupKey(group), this.limits.clock.now()],
    )
    return found.map(({ channel }) => channel)
  }

  async groups(): Promise<readonly { readonly group: string; readonly members: number }[]> {
    this.#checkOpen()
    const found = await this.#read<{ readonly group_name: string; readonly members: number }>(
      `SELECT group_name, count(*) AS members FROM ${this.#statements.tables.membership}
       WHERE expires_at > ? GROUP BY group_name`,
      [this.limits.clock.now()],
    )
    return found.flatMap(({ group_name, members }) => {
      try {
        return [{ group: groupOfKey(group_name), members: Number(members) }]
      } catch {
        // No name that was written here.
        return []
      }
    })
  }

  async channels(): Promise<readonly ChannelInfo[]> {
    this.#checkOpen()
    const { message } = this.#statements.tables
    const found = await this.#read<{
      readonly channel: string
      readonly waiting: number
      readonly expires_at: number
    }>(
      `SELECT waits.channel, waits.waiting, oldest.expires_at
       FROM (SELECT replace(channel, '~', '') AS channel, count(*) AS waiting, min(id) AS id
             FROM ${message} WHERE expires_at > ? AND expires_at < ${neverMs}
             GROUP BY replace(channel, '~', '')) AS waits
       JOIN ${message} AS oldest ON oldest.id = waits.id`,
      [this.limits.clock.now()],
    )
    return found.map(({ channel, waiting, expires_at }) => ({
      channel,
      waiting: Number(waiting),
      oldestExpiresAt: Number(expires_at),
    }))
  }

  async announce(info: ProcessInfo, leaseMs: number): Promise<void> {
    this.#checkOpen()
    const { dialect, tables } = this.#statements
    const [id, text] = [info.id, JSON.stringify(info)]
    await this.#queue.write(1, ({ now }) =>
      change(
        `INSERT INTO ${tables.process} (id, info, expires_at) VALUES (?, ?, ?)
         ${dialect.overwrite(['id'], ['info', 'expires_at'])}`,
        [id, text, now + leaseMs],
      ),
    )
    this.#startMaintenance()
  }

  async withdraw(id: string): Promise<void> {
    this.#checkOpen()
    const { process } = this.#statements.tables
    await this.#queue.write(1, () => change(`DELETE FROM ${process} WHERE id = ?`, [id]))
  }

  async processes(): Promise<readonly ProcessInfo[]> {
    this.#checkOpen()
    const found = await this.#read<{ readonly info: string }>(
      `SELECT info FROM ${this.#statements.tables.process} WHERE expires_at > ?`,
      [this.limits.clock.now()],
    )
    return found.flatMap(({ info }) => readProcessInfo(info) ?? [])
  }

  async cleanUp(): Promise<number> {
    this.#checkOpen()
    // What those under way delete is this call's too, since they may have begun just before.
    const from = this.#deleted
    const before = this.#cleaning?.catch(() => {})
    const cleaning = (async () => {
      await before
      await this.#deleteExpired()
    })()
    this.#cleaning = cleaning
    try {
      await cleaning
    } finally {
      if (this.#cleaning === cleaning) this.#cleaning = undefined
    }
    return this.#deleted - from
  }

  async flush(): Promise<void> {
    this.#checkOpen()
    await this.#queue.write(1, (transaction) => transaction.flush())
  }

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async receiveEntries(inbox: string, options: ReceiveOptions): Promise<readonly InboxEntry[]> {
    this.#checkOpen()
    const claimed = await this.#receive([inbox], options)
    const entries: InboxEntry[] = []
    for (const { rows: taken } of claimed) {
      for (const row of taken) {
        const entry = this.#entry(inbox, row)
        if (entry) entries.push(entry)
      }
    }
    return entries
  }

  async renewMemberships(
    inbox: string,
    held: readonly Membership[],
    expiresAt: number,
    isHeld: (membership: Membership) => boolean = () => true,
  ): Promise<void> {
    this.#checkOpen()
    const lease = this.#inboxes.has(inbox) ? [inbox] : []
    const renewLeases = () => this.#renewLeases(lease)
    const isRenewed = await this.#queue.write(held.length, function* (transaction) {
      // Others may have taken a process that stood still for dead.
      yield* renewLeases()
      return yield* transaction.renewAll(inbox, held.length, expiresAt)
    })
    for (let done = 0; !isRenewed && done < held.length; done += recordBatch) {
      const some = held.slice(done, done + recordBatch)
      const record = () =>
        this.#queue.write(some.length, (transaction) =>
          transaction.record(inbox, some.filter(isHeld), expiresAt),
        )
      // What a claim has taken the inbox must have read: it may be that a membership was discarded.
      await (this.#claims ? this.#claims.withoutClaims(record) : record())
    }
  }

  async dropMemberships(memberships: readonly Membership[]): Promise<void> {
    this.#checkOpen()
    await this.#queue.write(memberships.length, (transaction) =>
      transaction.dropMemberships(memberships),
    )
  }

  async closeInbox(inbox: string): Promise<void> {
    if (!this.#inboxes.delete(inbox)) return
    await this.#queue.write(1, (transaction) => transaction.closeInbox(inbox))
  }

  async #close(): Promise<void> {
    this.#isClosed = true
    this.#mover.stop()
    this.#stopMaintenance?.()
    this.#looks.stop()
    for (const queue of [this.#queue, this.#claims]) {
      for (const receive of queue?.receives ?? []) receive.close(closedError())
    }
    try {
      await Promise.all([...this.#inboxes.keys()].map((inbox) => this.closeInbox(inbox)))
    } catch {
      // The database is away: the leases of the inboxes run out.
    }
    await this.#queue.drained()
    await this.#claims?.drained()
    await this.#client.close()
  }

  /** Stores a batch; one with a mark not again, when it turns out that it was stored before. */
  async #store(
    encoded: readonly EncodedMessage[],
    mark: BatchMark | undefined,
  ): Promise<readonly Outcome[]> {
    const unknown = mark && this.#unknown.get(mark.sender)
    if (mark && unknown) {
      const isStored = unknown.number === mark.number && (await unknown.wasStored())
      this.#unknown.delete(mark.sender)
      if (isStored) return unknown.outcomes
    }
    let outcomes: readonly Outcome[] | undefined
    try {
      return await this.#queue.write(encoded.length, function* (transaction) {
        outcomes = yield* transaction.send(encoded)
        return outcomes
      })
    } catch (error) {
      if (mark && outcomes && error instanceof UnknownCommit) {
        const { wasStored } = error
        this.#unknown.set(mark.sender, { number: mark.number, outcomes, wasStored })
      }
      throw error
    }
  }

  #receive(channels: readonly string[], options: ReceiveOptions): Promise<readonly Claimed[]> {
    options.signal?.throwIfAborted()
    const isPlain = !options.lines && !options.hold
    const queue = isPlain ? (this.#claims ?? this.#queue) : this.#queue
    const receive = new PendingReceive([...channels], options, this.limits.clock, (ended) =>
      queue.remove(ended),
    )
    queue.add(receive)
    return receive.promise
  }

  #messages(claimed: readonly Claimed[]): readonly IncomingMessage[] {
    const messages: IncomingMessage[] = []
    for (const { channel, rows: taken } of claimed) {
      for (const row of taken) {
        const content = row.decoded ?? this.#codec.decode(row.content as Encoded, `c:${channel}`)
        if (!content) {
          if (row.turn) this.#passOver(row.turn)
          if (row.hold) this.#drop({ channel, hold: row.hold })
          continue
        }
        const { id, expires_at: expiresAt, attempts, turn, hold } = row
        const marks = { ...(turn && { turn }), ...(hold && { hold }) }
        messages.push({ id, channel, content, expiresAt, attempts, ...marks })
      }
    }
    this.#count('received', messages.length)
    return messages
  }

  /** Lets a line go on behind a damaged message. */
  #passOver(turn: LineTurn): void {
    this.advanceLines([turn], { channels: [], leaseMs: 1 }).catch(() => {
      // The database is away: the turn lapses.
    })
  }

  /** Ends the hold of a damaged message. */
  #drop(message: HeldMessage): void {
    this.settle([{ message }]).catch(() => {
      // The database is away: it comes again.
    })
  }

  /**
   * Lets lines go on whose turn has lapsed, and puts what is due on its channel; returns when there is
   * more to do. A turn that is given meanwhile lasts longer than until the next look.
   */
  async #look(): Promise<number> {
    const { clock } = this.limits
    const nextAt = (): Promise<number> => this.#client.read(() => this.#nextAt())
    if (this.#isClosed) return Number.POSITIVE_INFINITY
    const at = await nextAt()
    if (at > clock.now() || this.#isClosed) return at
    const looksAtLines = this.#looksAtLines
    await this.#queue.write(mostPerLook, function* (transaction) {
      if (looksAtLines) yield* transaction.releaseLines()
      yield* transaction.releaseLater(mostPerLook)
    })
    return this.#isClosed ? Number.POSITIVE_INFINITY : await nextAt()
  }

  *#nextAt(): SqlWork<number> {
    const laterAt = yield* this.#later.nextAt()
    if (!this.#looksAtLines) return laterAt
    return Math.min(laterAt, yield* this.#lines.nextLapse())
  }

  async #releaseAllLater(): Promise<void> {
    for (;;) {
      const at = await this.#client.read(() => this.#later.nextAt())
      if (at > this.limits.clock.now()) return
      const due = await this.#queue.write(mostPerLook, (transaction) =>
        transaction.releaseLater(mostPerLook),
      )
      if (due < mostPerLook) return
    }
  }

  #encodedSettlement({ message, next }: Settlement): EncodedSettlement {
    if (!next) return { message, next: undefined }
    // It was let in once; a smaller limit of this process must not lose it.
    const encoded = this.#encodedMessage(next, Number.POSITIVE_INFINITY)
    return { message, next: { ...encoded, deliverAt: next.deliverAt, later: undefined } }
  }

  #encodedMessage(
    message: OutgoingMessage,
    maxBytes = this.limits.maxContentBytes,
  ): EncodedMessage {
    const { channel, content, expiresAt, attempts = 0 } = message
    const fault = channelNameFault(channel)
    if (fault) throw fault
    const encoded = this.#codec.encode(content, maxBytes, `c:${channel}`)
    if (expiresAt !== undefined) checkNumber('expiresAt', expiresAt)
    checkNumber('attempts', attempts)
    const { reply_channel: reply } = content
    const line = typeof reply === 'string' ? lineKey(reply) : undefined
    // `neverMs` marks changes of membership.
    const expiry = expiresAt === undefined ? undefined : Math.min(expiresAt, neverMs - 1)
    const later = laterOf(message, this.limits)
    return { channel, encoded, expiresAt: expiry, attempts, line, later }
  }

  /** What a row tells an inbox, or `undefined` when it is damaged. */
  #entry(inbox: string, row: MessageRow): InboxEntry | undefined {
    try {
      return entryOf(inbox, row, this.#codec)
    } catch {
      this.counters.add('dropped.invalid')
      return undefined
    }
  }

  #read<Row>(text: string, values: readonly (string | number)[]): Promise<readonly Row[]> {
    return this.#client.read(() => rows<Row>(text, values))
  }

  *#isPrepared(): SqlWork<boolean> {
    if (!(yield* isSchemaMade(this.#statements.dialect, this.#statements.tables))) return false
    return this.#inboxes.size === 0
  }

  /** Makes the tables, and opens again the inboxes that a database which was lost knew. */
  *#prepare(): SqlWork<void> {
    yield* makeSchema(this.#statements.dialect, this.#statements.tables, this.#mayMigrate)
    yield* this.#renewLeases(this.#inboxes.keys())
    if (this.#inboxes.size > 0) setImmediate(() => void this.#recordAgain())
  }

  /** Renews the inboxes that keep their memberships, since the database may be another one. */
  async #recordAgain(): Promise<void> {
    try {
      for (const inbox of this.#inboxes.values()) {
        if (inbox.keepsMembers && inbox.membershipCount > 0) await inbox.renew()
      }
    } catch {
      if (this.#isClosed) return
      this.limits.clock.schedule(() => void this.#recordAgain(), retryRecordMs)
    }
  }

  *#renewLeases(inboxes: Iterable<string>): SqlWork<void> {
    const expiresAt = this.limits.clock.now() + this.#inboxLeaseMs
    for (const inbox of inboxes) yield* this.#statements.upsertInbox(inbox, expiresAt)
  }

  async #deleteExpired(): Promise<void> {
    await this.#releaseAllLater()
    const now = this.limits.clock.now()
    if (!(await this.#client.read(() => this.#hasExpired(now)))) return
    const { dialect, tables } = this.#statements
    let count = 0
    let deleted: number
    do {
      deleted = await this.#queue.write(cleanUpBatch, () =>
        dialect.deleteExpired(tables, now, cleanUpBatch),
      )
      count += deleted
    } while (deleted === cleanUpBatch)
    count += await this.#queue.write(cleanUpBatch, () => this.#deleteExpiredOthers(now))
    await this.#queue.write(1, (transaction) => transaction.releaseLines())
    this.#count('dropped.expired', count)
    this.#deleted += count
  }

  *#hasExpired(now: number): SqlWork<boolean> {
    const { message, inbox, membership, line, process } = this.#statements.tables
    for (const table of [message, inbox, membership, line, process]) {
      const found = yield* rows(`SELECT 1 FROM ${table} WHERE expires_at <= ? LIMIT 1`, [now])
      if (found.length > 0) return true
    }
    return false
  }

  /** Deletes memberships, announcements and inboxes that have expired; returns what lay in them. */
  *#deleteExpiredOthers(now: number): SqlWork<number> {
    const { inbox, membership, process } = this.#statements.tables
    yield* change(`DELETE FROM ${membership} WHERE expires_at <= ?`, [now])
    yield* change(`DELETE FROM ${process} WHERE expires_at <= ?`, [now])
    yield* this.#renewLeases(this.#inboxes.keys())
    const lapsed = yield* rows<{ readonly name: string }>(
      `SELECT name FROM ${inbox} WHERE expires_at <= ?`,
      [now],
    )
    let count = 0
    for (const { name } of lapsed) count += yield* this.#statements.deleteInbox(name)
    return count
  }

  /** From the first thing stored on: renews the inboxes' leases and deletes what has expired. */
  #startMaintenance(): void {
    if (this.#isClosed) return
    const { clock, expiryMs, groupExpiryMs } = this.limits
    this.#stopMaintenance ??= repeat(
      clock,
      () => {
        this.#maintain().catch(() => {
          // The database is away: the next time will do.
        })
      },
      maintenanceShare * Math.min(expiryMs, groupExpiryMs),
    )
  }

  async #maintain(): Promise<void> {
    if (this.#inboxes.size > 0) {
      await this.#queue.write(1, () => this.#renewLeases(this.#inboxes.keys()))
    }
    if (!this.#isClosed) await this.cleanUp()
  }

  #fullError(channel: string): ChannelkitError {
    const isReply = isReplyChannel(channel)
    const name = isReply ? inboxOf(channel) : channel
    const capacity = isReply ? this.limits.inboxCapacity : this.limits.capacityOf(channel)
    return new ChannelkitError(
      'ERR_CHANNEL_FULL',
      `channel ${name} holds its capacity of ${capacity} messages; start more workers or raise its capacity`,
    )
  }

  #countMoved(outcomes: readonly MovedOutcome[]): void {
    for (const outcome of outcomes) {
      if (outcome === 'stored') this.counters.add('sent')
      else if (outcome === 'expired') this.counters.add('dropped.expired')
      else if (outcome === 'invalid') this.counters.add('dropped.invalid')
      else if (outcome === 'undecryptable') this.counters.add('dropped.undecryptable')
      else if (outcome === 'full') this.counters.add('dropped.full')
      else if (outcome === 'gone') this.counters.add('dropped.gone')
    }
  }

  *#hasOutbox(): SqlWork<boolean> {
    const { outbox } = this.#statements.tables
    return (yield* rows(`SELECT 1 FROM ${outbox} LIMIT 1`, [])).length > 0
  }

  #countDrops(outcomes: readonly Outcome[]): void {
    let full = 0
    let gone = 0
    for (const outcome of outcomes) {
      if (outcome === 'full' || outcome === 'line-full' || outcome === 'delayed-full') full++
      else if (outcome === 'gone') gone++
    }
    this.#count('dropped.full', full)
    this.#count('dropped.gone', gone)
  }

  #count(name: string, by: number): void {
    if (by > 0) this.counters.add(name, by)
  }

  #checkOpen(): void {
    if (this.#isClosed) throw closedError()
  }
}

function* noWork(): SqlWork<void> {}

/**
 * `undefined` where the codec has counted a drop.
 *
 * @throws {Error} for a row that was not written here.
 */
function entryOf(
  inbox: string,
  { kind, target, content }: MessageRow,
  codec: ContentCodec,
): InboxEntry | undefined {
  if (typeof target !== 'string') throw new TypeError('a row has no target')
  const channel = inbox + target
  switch (kind) {
    case rowKind.reply: {
      const decoded = codec.decode(content as Encoded, `c:${channel}`)
      return decoded && { kind: 'message', channel, content: decoded }
    }
    case rowKind.group: {
      const group = groupOfKey(target)
      const decoded = codec.decode(content as Encoded, `g:${group}`)
      return decoded && { kind: 'group', group, content: decoded }
    }
    case rowKind.add:
    case rowKind.discard: {
      const [group, expiresAt] = JSON.parse(textOf(content)) as [unknown, unknown]
      if (typeof group !== 'string') throw new TypeError('a change of membership has no group')
      if (kind === rowKind.discard) return { kind: 'discard', group, channel }
      if (typeof expiresAt !== 'number') throw new TypeError('a membership has no expiry')
      return { kind: 'add', group, channel, expiresAt }
    }
    default:
      throw new RangeError('a row is of no known kind')
  }
}

function claimsBeside(client: SqlClient): client is ClaimQueueOptions['client'] {
  return client.claim !== undefined
}
