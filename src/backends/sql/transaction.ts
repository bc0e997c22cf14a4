import {
  channelNameFault,
  groupNameFault,
  inboxOf,
  isReplyChannel,
  workChannelNameFault,
} from '../../names.ts'
import type {
  AdvanceOptions,
  BackendLimits,
  HeldMessage,
  IncomingMessage,
  LineOptions,
  LineTurn,
  Membership,
  ReceiveOptions,
  SettleOutcome,
} from '../channel-backend.ts'
import type { Encoded } from '../codec.ts'
import type { ContentCodec } from '../content-codec.ts'
import { checkId, holdName, type LaterMessage, longestDelayMs } from '../later.ts'
import type { MessageRow, OutboxRow } from './dialect.ts'
import {
  groupKey,
  groupOfKey,
  type LaterTarget,
  neverMs,
  outboxLater,
  rowKind,
  textOf,
} from './schema.ts'
import { change, rows, type SqlValue, type SqlWork } from './sql-client.ts'
import { againRow, delayedRow, type LaterWork, type SqlLater } from './sql-later.ts'
import type { LinedRow, LineWork, SqlLines } from './sql-lines.ts'
import type { NewLater, NewMembership, NewRow, Statements } from './statements.ts'

/** A message whose content is encoded. */
export interface EncodedMessage {
  readonly channel: string
  readonly encoded: Encoded
  /** Undefined for the default from when it is stored. */
  readonly expiresAt: number | undefined
  readonly attempts: number
  /** The reply channel in its content, on a work channel. */
  readonly line: string | undefined
  /** Where it is for a later time, with that in it. */
  readonly later?: LaterMessage | undefined
}

/** The end of a hold; what comes in the place of its message is encoded. */
export interface EncodedSettlement {
  readonly message: HeldMessage
  readonly next: (EncodedMessage & { readonly deliverAt: number | undefined }) | undefined
}

/** What became of a message. */
export type Outcome = 'stored' | 'full' | 'line-full' | 'delayed-full' | 'gone'

/** What became of a row of the outbox; of a group's, what kept members from it. */
export type MovedOutcome = Outcome | 'expired' | 'invalid' | 'undecryptable'

export interface Claimed {
  readonly channel: string
  readonly rows: readonly MessageRow[]
}

// So many rows of the outbox are moved by one transaction, some 20 ms. What is left goes before
// anything else is written.
const mostMoved = 2_000

// Encrypted content is base64 in some databases, and 49 bytes longer.
const sealedShare = 1.5

/** Stands for the room in an inbox that does not exist. */
const closed = -1

/**
 * What the calls of one turn of the event loop write together. Rows are gathered and inserted by
 * few statements; each channel's room is counted once and then kept in step.
 */
export class Transaction implements LineWork, LaterWork {
  /** Channels and inboxes on which something was stored. */
  readonly writtenChannels = new Set<string>()
  /** Expired messages that were found and deleted. */
  expiredCount = 0
  /** Turns that nobody passed on, or handed back too late, whose lines went on. */
  lapsedCount = 0
  /** What became of rows of the outbox. */
  readonly movedOutcomes: MovedOutcome[] = []
  /** Messages whose holds nobody settled, and that are given again. */
  redeliveredCount = 0
  readonly seenElsewhere: Map<string, number>
  readonly now: number
  readonly #lines: SqlLines
  readonly #later: SqlLater
  /** Channels with so many parked messages that a line may hold its share of them. */
  readonly #crowded = new Set<string>()
  readonly #statements: Statements
  readonly #limits: BackendLimits
  readonly #newRows: NewRow[] = []
  readonly #newLater: NewLater[] = []
  readonly #newMemberships = new Map<string, NewMembership>()
  /** Channel or inbox that was looked at → how many more messages fit, or {@link closed}. */
  readonly #room = new Map<string, number>()
  /** Channel → how many more messages for later it takes. */
  readonly #laterRoom = new Map<string, number>()
  /** Channels with messages for later that were let in since their room was counted. */
  readonly #laterLetIn = new Set<string>()
  /** Group key → inboxes with members, and its work channels; emptied by every change of one. */
  readonly #groups = new Map<string, readonly string[]>()

  constructor(
    statements: Statements,
    lines: SqlLines,
    later: SqlLater,
    limits: BackendLimits,
    seenElsewhere: ReadonlyMap<string, number>,
  ) {
    this.#statements = statements
    this.#lines = lines
    this.#later = later
    // A copy, since what is seen in a transaction that fails is to be seen again.
    this.seenElsewhere = new Map(seenElsewhere)
    this.#limits = limits
    this.now = limits.clock.now()
  }

  /**
   * Puts what the site's transactions have sent where it goes, in the order of its ids; work channels
   * take all of it, since it was let in when it was sent.
   *
   * @returns whether that was all.
   */
  *moveOutbox(codec: ContentCodec): SqlWork<boolean> {
    const { dialect, tables } = this.#statements
    const moved = yield* dialect.takeOutbox(tables, mostMoved)
    for (const row of moved) this.movedOutcomes.push(...(yield* this.#move(row, codec)))
    yield* this.finish()
    // Looked at before some of these were inserted.
    this.#room.clear()
    this.#laterRoom.clear()
    return moved.length < mostMoved
  }

  written(channel: string): void {
    this.writtenChannels.add(channel)
  }

  expired(count: number): void {
    this.expiredCount += count
  }

  lapsed(): void {
    this.lapsedCount++
  }

  redelivered(): void {
    this.redeliveredCount++
  }

  *send(messages: readonly EncodedMessage[]): SqlWork<readonly Outcome[]> {
    const outcomes: Outcome[] = []
    const expiry = this.now + this.#limits.expiryMs
    for (const { channel, encoded, expiresAt = expiry, attempts, line, later } of messages) {
      if (later) {
        const hasRoom = yield* this.#hasRoomLater(channel, later.id)
        if (hasRoom) this.#newLater.push(delayedRow(channel, later, encoded, attempts))
        outcomes.push(hasRoom ? 'stored' : 'delayed-full')
      } else if (isReplyChannel(channel)) {
        const inbox = inboxOf(channel)
        const target = channel.slice(inbox.length)
        if (!this.#room.has(inbox)) yield* this.#lookAtInbox(inbox)
        outcomes.push(this.#store([inbox, rowKind.reply, target, encoded, expiresAt, 0]))
      } else {
        if (!this.#room.has(channel)) yield* this.#lookAtChannel(channel)
        if (line !== undefined && this.#crowded.has(channel)) {
          const parked = yield* this.#lines.parkedInLine(line, channel, this.now)
          if (parked >= this.#limits.lineCapacity) {
            outcomes.push('line-full')
            continue
          }
        }
        outcomes.push(this.#store([channel, rowKind.work, null, encoded, expiresAt, attempts]))
      }
    }
    return outcomes
  }

  *advanceLines(
    turns: readonly LineTurn[],
    options: AdvanceOptions,
  ): SqlWork<{ readonly next: readonly LinedRow[]; readonly lost: readonly LineTurn[] }> {
    const { next, lost } = yield* this.#lines.advance(this, turns, options)
    for (const { channel } of next) this.#room.delete(channel)
    const { hold } = options
    if (!hold) return { next, lost }
    const [held, others] = divided(next, ({ channel }) => hold.channels.includes(channel))
    return { next: [...others, ...(yield* this.#later.hold(this.now, held, hold))], lost }
  }

  *cancel(channel: string, ids: readonly string[]): SqlWork<readonly boolean[]> {
    yield* this.finish()
    const found: boolean[] = []
    for (const id of ids) found.push(yield* this.#later.cancel(channel, id))
    this.#laterRoom.delete(channel)
    return found
  }

  *settle(settlements: readonly EncodedSettlement[]): SqlWork<readonly SettleOutcome[]> {
    yield* this.finish()
    const held = yield* this.#later.held(settlements.map(({ message }) => message))
    const ended: string[] = []
    const outcomes: SettleOutcome[] = []
    for (const { message, next } of settlements) {
      const name = holdName(message.hold.token)
      if (!held.has(name)) {
        outcomes.push('lost')
        continue
      }
      if (next?.deliverAt === undefined && next && !(yield* this.#storeNext(next))) {
        outcomes.push('full')
        continue
      }
      held.delete(name)
      ended.push(name)
      if (next?.deliverAt !== undefined) {
        const { channel, encoded, deliverAt, attempts } = next
        const expiresAt = next.expiresAt ?? deliverAt + this.#limits.expiryMs
        const { token } = message.hold
        this.#newLater.push(againRow(channel, token, deliverAt, encoded, expiresAt, attempts))
      }
      outcomes.push('settled')
    }
    yield* this.#later.end(ended)
    return outcomes
  }

  *renewHolds(messages: readonly HeldMessage[], leaseMs: number): SqlWork<readonly HeldMessage[]> {
    yield* this.finish()
    const held = yield* this.#later.held(messages)
    const still = messages.filter(({ hold }) => held.has(holdName(hold.token)))
    const expiresAt = this.now + leaseMs
    yield* this.#later.renew([...held], expiresAt)
    return still.map((message) => ({ ...message, hold: { ...message.hold, expiresAt } }))
  }

  /** Puts up to `most` rows whose time has come on their channels; returns how many were due. */
  *releaseLater(most: number): SqlWork<number> {
    yield* this.finish()
    this.#room.clear()
    this.#laterRoom.clear()
    return yield* this.#later.release(this, most, this.#limits.expiryMs)
  }

  renewLines(turns: readonly LineTurn[], leaseMs: number): SqlWork<readonly LineTurn[]> {
    return this.#lines.renew(turns, this.now + leaseMs)
  }

  /** Lets lines go on whose turn or head has lapsed. */
  releaseLines(): SqlWork<void> {
    return this.#lines.release(this)
  }

  /** Gives each inbox of the group and each member work channel one copy. */
  *groupSend(
    group: string,
    encoded: Encoded,
    codec: ContentCodec,
    expiresAt = this.now + this.#limits.expiryMs,
  ): SqlWork<readonly Outcome[]> {
    const key = groupKey(group)
    let receivers = this.#groups.get(key)
    if (!receivers) {
      yield* this.#flushMemberships()
      const inboxes = yield* this.#statements.inboxesOfGroup(key, this.now)
      receivers = inboxes.includes('')
        ? [
            ...inboxes.filter((inbox) => inbox !== ''),
            ...(yield* this.#statements.workMembers(key, this.now)),
          ]
        : inboxes
      this.#groups.set(key, receivers)
    }
    const outcomes: Outcome[] = []
    const forInboxes = codec.seal(encoded, `g:${group}`)
    for (const receiver of receivers) {
      if (isReplyChannel(receiver)) {
        if (!this.#room.has(receiver)) yield* this.#lookAtInbox(receiver)
        outcomes.push(this.#store([receiver, rowKind.group, key, forInboxes, expiresAt, 0]))
      } else {
        if (!this.#room.has(receiver)) yield* this.#lookAtChannel(receiver)
        const forChannel = codec.seal(encoded, `c:${receiver}`)
        outcomes.push(this.#store([receiver, rowKind.work, null, forChannel, expiresAt, 0]))
      }
    }
    return outcomes
  }

  *groupAdd(memberships: readonly Membership[]): SqlWork<void> {
    const expiresAt = this.now + this.#limits.groupExpiryMs
    for (const { group, channel } of memberships) {
      const key = groupKey(group)
      let inbox = ''
      if (isReplyChannel(channel)) {
        inbox = inboxOf(channel)
        // An inbox that is closed has no clients left to be members.
        if (!(yield* this.#isInboxOpen(inbox))) continue
        const content = JSON.stringify([group, expiresAt])
        this.#add([inbox, rowKind.add, channel.slice(inbox.length), content, neverMs, 0])
      }
      this.#record(key, inbox, channel, expiresAt)
    }
  }

  *groupDiscard(memberships: readonly Membership[]): SqlWork<void> {
    yield* this.dropMemberships(memberships)
    for (const { group, channel } of memberships) {
      if (!isReplyChannel(channel)) continue
      const inbox = inboxOf(channel)
      if (!(yield* this.#isInboxOpen(inbox))) continue
      const content = JSON.stringify([group])
      this.#add([inbox, rowKind.discard, channel.slice(inbox.length), content, neverMs, 0])
    }
  }

  *dropMemberships(memberships: readonly Membership[]): SqlWork<void> {
    yield* this.#flushMemberships()
    for (const { group, channel } of memberships) {
      const key = groupKey(group)
      const inbox = isReplyChannel(channel) ? inboxOf(channel) : ''
      yield* this.#statements.deleteMembership(key, inbox, channel)
      this.#groups.delete(key)
    }
  }

  /**
   * Renews what is recorded for an inbox if that is as much as its `heldCount`, at the cost of one
   * statement. Otherwise something was lost, or is left of a client that is gone, which must not
   * be renewed.
   */
  *renewAll(inbox: string, heldCount: number, expiresAt: number): SqlWork<boolean> {
    yield* this.#flushMemberships()
    const { membership } = this.#statements.tables
    const [found] = yield* rows<{ readonly recorded: number }>(
      `SELECT count(*) AS recorded FROM ${membership} WHERE inbox = ? AND expires_at > ?`,
      [inbox, this.now],
    )
    if (Number(found?.recorded) !== heldCount) return false
    yield* change(`UPDATE ${membership} SET expires_at = ? WHERE inbox = ? AND expires_at > ?`, [
      expiresAt,
      inbox,
      this.now,
    ])
    return true
  }

  /** Records memberships that an inbox knows of, unless it has yet to read that one was discarded. */
  *record(inbox: string, memberships: readonly Membership[], expiresAt: number): SqlWork<void> {
    yield* this.finish()
    const discards = yield* rows<{ readonly target: string; readonly content: unknown }>(
      `SELECT target, content FROM ${this.#statements.tables.message}
       WHERE channel = ? AND expires_at = ${neverMs} AND kind = ${rowKind.discard}`,
      [inbox],
    )
    const ended = new Set(
      discards.map(({ target, content }) => `${inbox}${target} ${textOf(content)}`),
    )
    for (const { group, channel } of memberships) {
      if (ended.has(`${channel} ${JSON.stringify([group])}`)) continue
      this.#record(groupKey(group), inboxOf(channel), channel, expiresAt)
    }
    yield* this.#flushMemberships()
  }

  /**
   * Puts rows `[id, ...columns]` back: one with a hold only if that has not lapsed, one with a turn
   * alone only if the turn has not.
   */
  *handBack(
    given: readonly (readonly SqlValue[])[],
    messages: readonly Pick<IncomingMessage, 'channel' | 'turn' | 'hold'>[],
  ): SqlWork<void> {
    yield* this.finish()
    const back: (readonly SqlValue[])[] = []
    const held = yield* this.#later.held(
      messages.flatMap(({ channel, hold }) => (hold ? [{ channel, hold }] : [])),
    )
    for (const [place, row] of given.entries()) {
      const { turn, hold } = messages[place] ?? {}
      const [id, expiresAt] = [row[0] as number, row[5] as number]
      const isHeld = hold !== undefined && held.has(holdName(hold.token))
      const mayGo = hold === undefined || isHeld
      const isReady = !turn || !mayGo || (yield* this.#lines.handBack(turn, id, expiresAt))
      if (mayGo && (isReady || isHeld)) back.push(row)
      else this.lapsedCount++
    }
    yield* this.#later.end([...held])
    yield* this.#statements.insertWithIds(back)
    for (const [, channel] of back) this.writtenChannels.add(channel as string)
  }

  *closeInbox(inbox: string): SqlWork<void> {
    yield* this.finish()
    yield* this.#statements.deleteInbox(inbox)
    this.#forget()
  }

  /** Removes every message, membership and announcement; open inboxes stay open. */
  *flush(): SqlWork<void> {
    yield* this.finish()
    const { message, membership, line, later, process, outbox } = this.#statements.tables
    for (const table of [message, membership, line, later, process, outbox])
      yield* change(`DELETE FROM ${table}`, [])
    this.#forget()
  }

  /**
   * Takes up to `max` rows into `claimed`, dividing them between those of `channels` that have some,
   * the first `turn` channels last. The claim of everything that is ever received.
   */
  *claim(
    claimed: Claimed[],
    channels: readonly string[],
    max: number,
    turn: number,
    { lines, hold }: Pick<ReceiveOptions, 'lines' | 'hold'> = {},
  ): SqlWork<void> {
    yield* this.finish()
    yield* this.#claim(claimed, channels, max, turn, lines)
    if (!hold) return
    for (const [place, { channel, rows: taken }] of claimed.entries()) {
      if (!hold.channels.includes(channel)) continue
      const placed = taken.map((row) => ({ ...row, channel }))
      claimed[place] = { channel, rows: yield* this.#later.hold(this.now, placed, hold) }
    }
  }

  *#claim(
    claimed: Claimed[],
    channels: readonly string[],
    max: number,
    turn: number,
    lines: LineOptions | undefined,
  ): SqlWork<void> {
    const plain = lines ? channels.filter((each) => !lines.channels.includes(each)) : channels
    if (!lines || plain.length === channels.length) {
      yield* this.#claimPlain(claimed, plain, max, turn)
      return
    }
    // Rounded up or down at random, or a batch of one would always be of the same kind.
    const ofLines = (max * (channels.length - plain.length)) / channels.length
    const share = Math.floor(ofLines + Math.random())
    let left = max - (yield* this.#claimByLines(claimed, lines, share))
    if (plain.length > 0) {
      left -= yield* this.#claimPlain(claimed, plain, left, turn % plain.length)
    }
    // All its channels, though only some are known to have rows: others may hold older ones.
    yield* this.#claimByLines(claimed, lines, left)
  }

  *#claimByLines(claimed: Claimed[], lines: LineOptions, most: number): SqlWork<number> {
    if (most === 0) return 0
    for (const channel of lines.channels) this.#room.delete(channel)
    const taken = yield* this.#lines.claim(this, lines, most)
    for (const row of taken) claimed.push({ channel: row.channel, rows: [row] })
    return taken.length
  }

  /** Claims each channel's share, and what is left of the batch; returns how many rows that were. */
  *#claimPlain(
    claimed: Claimed[],
    channels: readonly string[],
    max: number,
    turn: number,
  ): SqlWork<number> {
    const ordered = channels.map((_, index) => channels[(index + turn) % channels.length] as string)
    const found: string[] = []
    let left = max
    for (let index = 0; index < ordered.length && left > 0; index++) {
      // What one channel leaves of its share goes to those behind it.
      const share = Math.ceil(left / (ordered.length - index))
      const channel = ordered[index] as string
      const rows = yield* this.#claimOn(channel, share)
      if (rows.length === 0) continue
      claimed.push({ channel, rows })
      found.push(channel)
      left -= rows.length
    }
    for (const channel of found) {
      if (left === 0 || ordered.length === 1) break
      const rows = yield* this.#claimOn(channel, left)
      if (rows.length > 0) claimed.push({ channel, rows })
      left -= rows.length
    }
    return max - left
  }

  /** Inserts what was gathered. */
  *finish(): SqlWork<void> {
    yield* this.#flushMemberships()
    if (this.#newRows.length > 0) yield* this.#statements.insert(this.#newRows)
    this.#newRows.length = 0
    if (this.#newLater.length > 0) yield* this.#statements.insertLater(this.#newLater)
    this.#newLater.length = 0
  }

  *#claimOn(channel: string, most: number): SqlWork<readonly MessageRow[]> {
    const { dialect, tables } = this.#statements
    const taken = yield* dialect.claim(tables, channel, most)
    this.#room.delete(channel)
    const live = taken.filter((row) => row.expires_at > this.now)
    if (live.length === taken.length) return live
    this.expiredCount += taken.length - live.length
    // The others that have expired go at once, so that the second claim meets live ones alone.
    this.expiredCount += yield* dialect.deleteOn(tables, channel, this.now)
    if (taken.length < most) return live
    const more = yield* dialect.claim(tables, channel, most - live.length)
    return [...live, ...more]
  }

  *#move(row: OutboxRow, codec: ContentCodec): SqlWork<readonly MovedOutcome[]> {
    // Who may only insert here must not say that a message lives for ever.
    const sentAt = Math.min(row.sent_at ?? this.now, this.now)
    if (row.kind === outboxLater) return [this.#moveLater(row, sentAt)]
    const expiresAt = sentAt + this.#limits.expiryMs
    if (expiresAt <= this.now) return ['expired']
    const content = this.#statements.dialect.contentOf(row.content) as Encoded
    if (content.length > this.#limits.maxContentBytes * sealedShare) return ['invalid']
    if (row.kind === rowKind.group) {
      const group = groupNameOf(row.target)
      if (group === undefined) return ['invalid']
      const encoded = codec.unseal(content, `g:${group}`)
      if (encoded === undefined) return ['undecryptable']
      const outcomes = yield* this.groupSend(group, encoded, codec, expiresAt)
      return outcomes.filter((outcome) => outcome !== 'stored')
    }
    const channel = row.target
    if (channelNameFault(channel)) return ['invalid']
    if (isReplyChannel(channel)) {
      const inbox = inboxOf(channel)
      if (!this.#room.has(inbox)) yield* this.#lookAtInbox(inbox)
      const target = channel.slice(inbox.length)
      return [this.#store([inbox, rowKind.reply, target, content, expiresAt, 0])]
    }
    this.#add([channel, rowKind.work, null, content, expiresAt, 0])
    return ['stored']
  }

  /** It has found room when it was written. */
  #moveLater({ target, content }: OutboxRow, sentAt: number): MovedOutcome {
    const stored = this.#statements.dialect.contentOf(content) as Encoded
    const later = laterTargetOf(target)
    const longest = this.now + longestDelayMs
    if (stored.length > this.#limits.maxContentBytes * sealedShare) return 'invalid'
    if (!later || later.deliverAt > longest) return 'invalid'
    const expiresAt = Math.max(later.deliverAt, sentAt) + this.#limits.expiryMs
    if (expiresAt <= this.now) return 'expired'
    this.#newLater.push(delayedRow(later.channel, { ...later, expiresAt }, stored, 0))
    return 'stored'
  }

  /** Whether a message for later finds room on its channel, or another of its name there. */
  *#hasRoomLater(channel: string, id: string): SqlWork<boolean> {
    const most = this.#limits.delayedCapacity
    let room = this.#laterRoom.get(channel)
    if (room === undefined) room = most - (yield* this.#later.delayed(channel, most))
    if (room === 0 && this.#laterLetIn.delete(channel)) {
      // Of these, some may have had ids that were known.
      yield* this.finish()
      room = most - (yield* this.#later.delayed(channel, most))
    }
    this.#laterRoom.set(channel, Math.max(0, room - 1))
    if (room === 0) return yield* this.#later.isKnown(channel, id)
    this.#laterLetIn.add(channel)
    return true
  }

  /** Stores what comes in the place of a message that was held. */
  *#storeNext({ channel, encoded, expiresAt, attempts }: EncodedMessage): SqlWork<boolean> {
    if (!this.#room.has(channel)) yield* this.#lookAtChannel(channel)
    const expiry = expiresAt ?? this.now + this.#limits.expiryMs
    return this.#store([channel, rowKind.work, null, encoded, expiry, attempts]) === 'stored'
  }

  /** Stores a message in a channel or inbox that was looked at. */
  #store(row: NewRow): Outcome {
    const channel = row[0]
    const room = this.#room.get(channel) as number
    if (room === closed) return 'gone'
    if (room === 0) return 'full'
    this.#room.set(channel, room - 1)
    this.#add(row)
    return 'stored'
  }

  *#lookAtInbox(inbox: string): SqlWork<void> {
    const most = this.#limits.inboxCapacity
    const { waiting, isOpen } = yield* this.#statements.inbox(inbox, this.now, most)
    this.#room.set(inbox, isOpen ? most - waiting : closed)
  }

  *#lookAtChannel(channel: string): SqlWork<void> {
    const most = this.#limits.capacityOf(channel)
    const { waiting, parked } = yield* this.#statements.waiting(channel, this.now, most)
    this.#room.set(channel, Math.max(0, most - waiting - parked))
    if (parked >= this.#limits.lineCapacity) this.#crowded.add(channel)
    else this.#crowded.delete(channel)
  }

  *#isInboxOpen(inbox: string): SqlWork<boolean> {
    if (!this.#room.has(inbox)) yield* this.#lookAtInbox(inbox)
    return this.#room.get(inbox) !== closed
  }

  #add(row: NewRow): void {
    this.#newRows.push(row)
    this.writtenChannels.add(row[0])
  }

  #record(key: string, inbox: string, channel: string, expiresAt: number): void {
    this.#newMemberships.set(`${key}\n${channel}`, [key, inbox, channel, expiresAt])
    this.#groups.delete(key)
  }

  *#flushMemberships(): SqlWork<void> {
    if (this.#newMemberships.size === 0) return
    yield* this.#statements.upsertMemberships([...this.#newMemberships.values()])
    this.#newMemberships.clear()
  }

  #forget(): void {
    this.#room.clear()
    this.#laterRoom.clear()
    this.seenElsewhere.clear()
    this.#groups.clear()
  }
}

/** The group that a row of the outbox names, if it is a name. */
function groupNameOf(key: string): string | undefined {
  try {
    const group = groupOfKey(key)
    return groupNameFault(group) ? undefined : group
  } catch {
    return undefined
  }
}

/** What a row of the outbox says of a message for later, if it can be one. */
function laterTargetOf(
  target: string,
): (Omit<LaterMessage, 'expiresAt'> & { readonly channel: string }) | undefined {
  try {
    const [channel, id, once, deliverAt] = JSON.parse(target) as Partial<LaterTarget>
    if (workChannelNameFault(channel)) return undefined
    checkId(id)
    if (!Number.isSafeInteger(deliverAt)) return undefined
    const at = deliverAt as number
    return { channel: channel as string, id, once: once === true, deliverAt: at }
  } catch {
    return undefined
  }
}

function divided<T>(items: readonly T[], isFirst: (item: T) => boolean): [T[], T[]] {
  const [first, others]: [T[], T[]] = [[], []]
  for (const item of items) (isFirst(item) ? first : others).push(item)
  return [first, others]
}
