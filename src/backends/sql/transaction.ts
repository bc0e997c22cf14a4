import { inboxOf, isReplyChannel } from '../../names.ts'
import type { BackendLimits, Membership } from '../channel-backend.ts'
import type { Encoded } from '../codec.ts'
import type { MessageRow } from './dialect.ts'
import { groupKey, neverMs, rowKind } from './schema.ts'
import { change, rows, type SqlValue, type SqlWork } from './sql-client.ts'
import type { NewMembership, NewRow, Statements } from './statements.ts'

/** A message whose content is encoded. */
export interface EncodedMessage {
  readonly channel: string
  readonly encoded: Encoded
  readonly expiresAt: number
  readonly attempts: number
}

/** What became of a message. */
export type Outcome = 'stored' | 'full' | 'gone'

export interface Claimed {
  readonly channel: string
  readonly rows: readonly MessageRow[]
}

/** Stands for the room in an inbox that does not exist. */
const closed = -1

/**
 * What the calls of one turn of the event loop write together. Rows are gathered and inserted by
 * few statements; each channel's room is counted once and then kept in step.
 */
export class Transaction {
  /** Channels and inboxes on which something was stored. */
  readonly written = new Set<string>()
  /** Expired messages that were found and deleted. */
  expired = 0
  readonly #statements: Statements
  readonly #limits: BackendLimits
  readonly #now: number
  readonly #newRows: NewRow[] = []
  readonly #newMemberships = new Map<string, NewMembership>()
  /** Channel or inbox that was looked at → how many more messages fit, or {@link closed}. */
  readonly #room = new Map<string, number>()
  /** Group key → inboxes with members, and its work channels; emptied by every change of one. */
  readonly #groups = new Map<string, readonly string[]>()

  constructor(statements: Statements, limits: BackendLimits) {
    this.#statements = statements
    this.#limits = limits
    this.#now = limits.clock.now()
  }

  *send(messages: readonly EncodedMessage[]): SqlWork<readonly Outcome[]> {
    const outcomes: Outcome[] = []
    for (const { channel, encoded, expiresAt, attempts } of messages) {
      if (isReplyChannel(channel)) {
        const inbox = inboxOf(channel)
        const target = channel.slice(inbox.length)
        if (!this.#room.has(inbox)) yield* this.#lookAtInbox(inbox)
        outcomes.push(this.#store([inbox, rowKind.reply, target, encoded, expiresAt, 0]))
      } else {
        if (!this.#room.has(channel)) yield* this.#lookAtChannel(channel)
        outcomes.push(this.#store([channel, rowKind.work, null, encoded, expiresAt, attempts]))
      }
    }
    return outcomes
  }

  /** Gives each inbox of the group and each member work channel one copy. */
  *groupSend(group: string, encoded: Encoded, expiresAt: number): SqlWork<readonly Outcome[]> {
    const key = groupKey(group)
    let receivers = this.#groups.get(key)
    if (!receivers) {
      yield* this.#flushMemberships()
      const inboxes = yield* this.#statements.inboxesOfGroup(key, this.#now)
      receivers = inboxes.includes('')
        ? [
            ...inboxes.filter((inbox) => inbox !== ''),
            ...(yield* this.#statements.workMembers(key, this.#now)),
          ]
        : inboxes
      this.#groups.set(key, receivers)
    }
    const outcomes: Outcome[] = []
    for (const receiver of receivers) {
      if (isReplyChannel(receiver)) {
        if (!this.#room.has(receiver)) yield* this.#lookAtInbox(receiver)
        outcomes.push(this.#store([receiver, rowKind.group, key, encoded, expiresAt, 0]))
      } else {
        if (!this.#room.has(receiver)) yield* this.#lookAtChannel(receiver)
        outcomes.push(this.#store([receiver, rowKind.work, null, encoded, expiresAt, 0]))
      }
    }
    return outcomes
  }

  *groupAdd(memberships: readonly Membership[], expiresAt: number): SqlWork<void> {
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
      [inbox, this.#now],
    )
    if (Number(found?.recorded) !== heldCount) return false
    yield* change(`UPDATE ${membership} SET expires_at = ? WHERE inbox = ? AND expires_at > ?`, [
      expiresAt,
      inbox,
      this.#now,
    ])
    return true
  }

  /** Records memberships of an inbox that it knows of already. */
  *record(memberships: readonly Membership[], expiresAt: number): SqlWork<void> {
    for (const { group, channel } of memberships) {
      this.#record(groupKey(group), inboxOf(channel), channel, expiresAt)
    }
    yield* this.#flushMemberships()
  }

  /** Puts rows `[id, ...columns]` back. */
  *handBack(back: readonly (readonly SqlValue[])[]): SqlWork<void> {
    yield* this.#statements.insertWithIds(back)
    for (const [, channel] of back) this.written.add(channel as string)
  }

  *closeInbox(inbox: string): SqlWork<void> {
    yield* this.finish()
    yield* this.#statements.deleteInbox(inbox)
    this.#forget()
  }

  /** Removes every message, membership and announcement; open inboxes stay open. */
  *flush(): SqlWork<void> {
    yield* this.finish()
    const { message, membership, process } = this.#statements.tables
    for (const table of [message, membership, process]) yield* change(`DELETE FROM ${table}`, [])
    this.#forget()
  }

  /**
   * Takes up to `max` rows, dividing them between those of `channels` that have some, the first
   * `turn` channels last. The claim of everything that is ever received.
   */
  *claim(channels: readonly string[], max: number, turn: number): SqlWork<readonly Claimed[]> {
    yield* this.finish()
    const ordered = channels.map((_, index) => channels[(index + turn) % channels.length] as string)
    const claimed: Claimed[] = []
    let left = max
    for (let index = 0; index < ordered.length && left > 0; index++) {
      // What one channel leaves of its share goes to those behind it.
      const share = Math.ceil(left / (ordered.length - index))
      const channel = ordered[index] as string
      const found = yield* this.#claimOn(channel, share)
      if (found.length > 0) claimed.push({ channel, rows: found })
      left -= found.length
    }
    const taken = [...claimed]
    for (const { channel } of taken) {
      if (left === 0 || ordered.length === 1) break
      const found = yield* this.#claimOn(channel, left)
      if (found.length > 0) claimed.push({ channel, rows: found })
      left -= found.length
    }
    return claimed
  }

  /** Inserts what was gathered. */
  *finish(): SqlWork<void> {
    yield* this.#flushMemberships()
    if (this.#newRows.length > 0) yield* this.#statements.insert(this.#newRows)
    this.#newRows.length = 0
  }

  *#claimOn(channel: string, most: number): SqlWork<readonly MessageRow[]> {
    const taken = yield* this.#statements.dialect.claim(this.#statements.tables, channel, most)
    this.#room.delete(channel)
    const live = taken.filter((row) => row.expires_at > this.#now)
    if (live.length === taken.length) return live
    this.expired += taken.length - live.length
    // The others that have expired go at once, so that the second claim meets live ones alone.
    const { message } = this.#statements.tables
    this.expired += yield* change(`DELETE FROM ${message} WHERE channel = ? AND expires_at <= ?`, [
      channel,
      this.#now,
    ])
    if (taken.length < most) return live
    const more = yield* this.#statements.dialect.claim(
      this.#statements.tables,
      channel,
      most - live.length,
    )
    return [...live, ...more]
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
    const { waiting, isOpen } = yield* this.#statements.inbox(inbox, this.#now, most)
    this.#room.set(inbox, isOpen ? most - waiting : closed)
  }

  *#lookAtChannel(channel: string): SqlWork<void> {
    const most = this.#limits.capacityOf(channel)
    this.#room.set(channel, most - (yield* this.#statements.waiting(channel, this.#now, most)))
  }

  *#isInboxOpen(inbox: string): SqlWork<boolean> {
    if (!this.#room.has(inbox)) yield* this.#lookAtInbox(inbox)
    return this.#room.get(inbox) !== closed
  }

  #add(row: NewRow): void {
    this.#newRows.push(row)
    this.written.add(row[0])
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
    this.#groups.clear()
  }
}
