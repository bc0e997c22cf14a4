import { ChannelkitError } from '../../errors.ts'
import { channelNameFault, groupNameFault, isReplyChannel } from '../../names.ts'
import type {
  BackendLimits,
  RunStatement,
  SiteSend,
  TransactionalSends,
} from '../channel-backend.ts'
import { type Encoded, encodeContent } from '../codec.ts'
import type { ContentCodec } from '../content-codec.ts'
import { delayedFullError, type LaterMessage, laterOf } from '../later.ts'
import { outboxSign } from './outbox-sign.ts'
import {
  groupKey,
  type LaterTarget,
  laterKind,
  neverMs,
  outboxLater,
  parkedChannel,
  rowKind,
} from './schema.ts'
import type { SqlClient } from './sql-client.ts'
import type { SqlLater } from './sql-later.ts'
import type { Statements } from './statements.ts'

/** A send as it goes into the outbox. */
interface OutboxSend {
  readonly kind: number
  readonly target: string
  readonly content: Encoded
  /** Whose capacity it counts to; undefined for clients and groups, that are passed over when they are full. */
  readonly counted?: string
  readonly later?: LaterMessage
}

/** How many sends of one kind one channel is to take. */
interface Count {
  readonly channel: string
  readonly isLater: boolean
  /** Ids of those for later that may be known already. */
  readonly ids: Set<string>
  /** How many others. */
  count: number
}

// Bounds one statement, together with its content.
const mostRowsPerStatement = 200
const mostBytesPerStatement = 1_000_000

export interface SqlOutboxOptions {
  readonly client: SqlClient
  readonly statements: Statements
  readonly later: SqlLater
  readonly codec: ContentCodec
  readonly limits: BackendLimits
  readonly open: () => Promise<void>
  readonly fullError: (channel: string) => ChannelkitError
  /** Told of a time at which a message falls due. */
  readonly lookBy: (time: number) => void
  readonly onCommit: () => void
}

/**
 * Writes what a transaction of the site's sends into the outbox, by statements on the site's own
 * connection. They have no parameters, so that every driver and builder can run them: names are of
 * a few safe characters, all else is written in hexadecimal digits.
 *
 * Writers of the channels take turns by a lock, which a transaction of the site's must not hold. So
 * its rows get no place on a channel yet; the next writer gives them theirs when they are committed.
 */
export class SqlOutbox implements TransactionalSends<OutboxSend> {
  readonly #options: SqlOutboxOptions

  constructor(options: SqlOutboxOptions) {
    this.#options = options
  }

  open(): Promise<void> {
    return this.#options.open()
  }

  prepare(send: SiteSend): OutboxSend {
    const { codec, limits } = this.#options
    const encoded = encodeContent(send.content, limits.maxContentBytes)
    if ('group' in send) {
      const fault = groupNameFault(send.group)
      if (fault) throw fault
      const content = codec.seal(encoded, `g:${send.group}`)
      return { kind: rowKind.group, target: groupKey(send.group), content }
    }
    const { channel } = send
    const fault = channelNameFault(channel)
    if (fault) throw fault
    const later = laterOf(send, limits)
    const content = codec.seal(encoded, `c:${channel}`)
    if (!later) {
      const counted = isReplyChannel(channel) ? {} : { counted: channel }
      return { kind: rowKind.work, target: channel, content, ...counted }
    }
    const { id, once, deliverAt } = later
    this.#options.lookBy(deliverAt)
    const target: LaterTarget = [channel, id, once, deliverAt]
    return { kind: outboxLater, target: JSON.stringify(target), content, counted: channel, later }
  }

  async write(sends: readonly OutboxSend[], run: RunStatement, isLast: boolean): Promise<void> {
    const { dialect } = this.#options.statements
    if (!dialect.looksWithinSiteTransaction) await this.#checkRoom(sends)
    const looked = new Set<Count>()
    for (const some of inStatements(sends)) {
      const text = this.#text(some, countsOf(sends), looked, isLast)
      try {
        await run(text)
      } catch (error) {
        throw isRoomRefused(error) ? this.#fullError([...looked]) : error
      }
    }
  }

  committed(): void {
    this.#options.onCommit()
  }

  #text(
    sends: readonly OutboxSend[],
    counts: ReadonlyMap<string, Count>,
    looked: Set<Count>,
    isLast: boolean,
  ): string {
    const { client, statements, limits } = this.#options
    const { dialect, tables } = statements
    // Else it is set at the commit or, where no trigger does so, taken to be when it is moved.
    const sentAt = isLast ? String(Math.round(limits.clock.now())) : 'NULL'
    const tuples = sends.map((send) => {
      const { kind, target, content } = send
      const count = dialect.looksWithinSiteTransaction ? counts.get(countKey(send)) : undefined
      const room = count && !looked.has(count) ? this.#room(count) : '0'
      if (count) looked.add(count)
      const values = [kind, dialect.literal(target), dialect.literal(content), sentAt, room]
      return `(${values.join(', ')})`
    })
    const insert = `INSERT INTO ${tables.outbox} (kind, target, content, sent_at, room) VALUES ${tuples.join(', ')}`
    // Only where nobody will know of the commit: each sign makes commits of the server take turns.
    if (isLast || !client.sign) return insert
    return `WITH sent AS (${insert}) SELECT ${client.sign([outboxSign])}`
  }

  /** 0, or null when the channel has no room for so many more. */
  #room({ channel, isLater, ids, count }: Count): string {
    const { limits, statements } = this.#options
    const { message, later } = statements.tables
    if (isLater) {
      const { delayedCapacity } = limits
      const names = [...ids].map((id) => `'${id}'`).join(', ')
      const known = `(SELECT count(*) FROM ${later} WHERE channel = '${channel}' AND name IN (${names}))`
      return `CASE WHEN (SELECT count(*) FROM (SELECT 1 FROM ${later} WHERE channel = '${channel}'
          AND kind <= ${laterKind.once} LIMIT ${delayedCapacity}) AS live)
        + ${count + ids.size}${ids.size > 0 ? ` - ${known}` : ''} <= ${delayedCapacity} THEN 0 END`
    }
    const capacity = limits.capacityOf(channel)
    const now = Math.round(limits.clock.now())
    const waiting = (name: string): string =>
      `(SELECT count(*) FROM (SELECT 1 FROM ${message} WHERE channel = '${name}'
        AND expires_at > ${now} AND expires_at < ${neverMs} LIMIT ${capacity}) AS live)`
    return `CASE WHEN ${waiting(channel)} + ${waiting(parkedChannel(channel))} <= ${capacity - count} THEN 0 END`
  }

  async #checkRoom(sends: readonly OutboxSend[]): Promise<void> {
    const { client, limits, statements, later } = this.#options
    for (const { channel, isLater, ids, count } of countsOf(sends).values()) {
      if (isLater) {
        const { delayedCapacity } = limits
        const hasRoom = await client.read(() =>
          later.hasRoom(channel, count, [...ids], delayedCapacity),
        )
        if (!hasRoom) throw delayedFullError(channel, delayedCapacity)
        continue
      }
      const capacity = limits.capacityOf(channel)
      const now = limits.clock.now()
      const { waiting, parked } = await client.read(() =>
        statements.waiting(channel, now, capacity),
      )
      if (waiting + parked + count > capacity) throw this.#options.fullError(channel)
    }
  }

  #fullError(counts: readonly Count[]): ChannelkitError {
    const [first, ...others] = counts
    if (first && others.length === 0) {
      const { delayedCapacity } = this.#options.limits
      if (first.isLater) return delayedFullError(first.channel, delayedCapacity)
      return this.#options.fullError(first.channel)
    }
    const channels = new Set(counts.map(({ channel }) => channel))
    return new ChannelkitError(
      'ERR_CHANNEL_FULL',
      `one of the channels ${[...channels].join(', ')} holds its capacity of messages; start more workers or raise its capacity`,
    )
  }
}

/** By channel, those for now and those for later. */
function countsOf(sends: readonly OutboxSend[]): ReadonlyMap<string, Count> {
  const counts = new Map<string, Count>()
  for (const send of sends) {
    const { counted: channel, later } = send
    if (channel === undefined) continue
    const key = countKey(send)
    const found = counts.get(key) ?? {
      channel,
      isLater: later !== undefined,
      ids: new Set(),
      count: 0,
    }
    if (later?.once) found.ids.add(later.id)
    else found.count++
    counts.set(key, found)
  }
  return counts
}

function countKey({ counted, later }: OutboxSend): string {
  return `${counted ?? ''} ${later ? 'later' : 'now'}`
}

function* inStatements(sends: readonly OutboxSend[]): Iterable<readonly OutboxSend[]> {
  let some: OutboxSend[] = []
  let bytes = 0
  for (const send of sends) {
    if (some.length === mostRowsPerStatement || bytes > mostBytesPerStatement) {
      yield some
      some = []
      bytes = 0
    }
    some.push(send)
    bytes += send.content.length
  }
  if (some.length > 0) yield some
}

/** Whether the table has refused a row for its column `room`, whatever a builder made of the error. */
function isRoomRefused(error: unknown): boolean {
  for (let each = error; each instanceof Error; each = nextOf(each)) {
    const { code, column, message } = each as Error & { readonly [key: string]: unknown }
    if (code === '23502' && column === 'room') return true
    if (/^NOT NULL constraint failed: \S+outbox\.room$/.test(message)) return true
  }
  return false
}

function nextOf(error: Error): unknown {
  const { cause, driverError, original } = error as Error & { readonly [key: string]: unknown }
  return cause ?? driverError ?? original
}
