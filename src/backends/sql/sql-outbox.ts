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
import { outboxSign } from './outbox-sign.ts'
import { groupKey, neverMs, parkedChannel, rowKind } from './schema.ts'
import type { SqlClient } from './sql-client.ts'
import type { Statements } from './statements.ts'

/** A send as it goes into the outbox. */
interface OutboxSend {
  readonly kind: number
  readonly target: string
  readonly content: Encoded
}

// Bounds one statement, together with its content.
const mostRowsPerStatement = 200
const mostBytesPerStatement = 1_000_000

export interface SqlOutboxOptions {
  readonly client: SqlClient
  readonly statements: Statements
  readonly codec: ContentCodec
  readonly limits: BackendLimits
  readonly open: () => Promise<void>
  readonly fullError: (channel: string) => ChannelkitError
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
    const fault = channelNameFault(send.channel)
    if (fault) throw fault
    const content = codec.seal(encoded, `c:${send.channel}`)
    return { kind: rowKind.work, target: send.channel, content }
  }

  async write(sends: readonly OutboxSend[], run: RunStatement, isLast: boolean): Promise<void> {
    const { dialect } = this.#options.statements
    if (!dialect.looksWithinSiteTransaction) await this.#checkRoom(sends)
    const looked = new Set<string>()
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
    counts: ReadonlyMap<string, number>,
    looked: Set<string>,
    isLast: boolean,
  ): string {
    const { client, statements, limits } = this.#options
    const { dialect, tables } = statements
    // Else it is set at the commit or, where no trigger does so, taken to be when it is moved.
    const sentAt = isLast ? String(Math.round(limits.clock.now())) : 'NULL'
    const tuples = sends.map(({ kind, target, content }) => {
      const count = counts.get(target)
      const looks = dialect.looksWithinSiteTransaction && isCounted({ kind, target })
      const room = looks && count && !looked.has(target) ? this.#room(target, count) : '0'
      if (looks) looked.add(target)
      const values = [kind, dialect.literal(target), dialect.literal(content), sentAt, room]
      return `(${values.join(', ')})`
    })
    const insert = `INSERT INTO ${tables.outbox} (kind, target, content, sent_at, room) VALUES ${tuples.join(', ')}`
    // Only where nobody will know of the commit: each sign makes commits of the server take turns.
    if (isLast || !client.sign) return insert
    return `WITH sent AS (${insert}) SELECT ${client.sign([outboxSign])}`
  }

  /** 0, or null when the channel has no room for `count` more. */
  #room(channel: string, count: number): string {
    const { limits, statements } = this.#options
    const { message } = statements.tables
    const capacity = limits.capacityOf(channel)
    const now = Math.round(limits.clock.now())
    const waiting = (name: string): string =>
      `(SELECT count(*) FROM (SELECT 1 FROM ${message} WHERE channel = '${name}'
        AND expires_at > ${now} AND expires_at < ${neverMs} LIMIT ${capacity}) AS live)`
    return `CASE WHEN ${waiting(channel)} + ${waiting(parkedChannel(channel))} <= ${capacity - count} THEN 0 END`
  }

  async #checkRoom(sends: readonly OutboxSend[]): Promise<void> {
    const { client, limits, statements } = this.#options
    for (const [channel, count] of countsOf(sends)) {
      const capacity = limits.capacityOf(channel)
      const now = limits.clock.now()
      const { waiting, parked } = await client.read(() =>
        statements.waiting(channel, now, capacity),
      )
      if (waiting + parked + count > capacity) throw this.#options.fullError(channel)
    }
  }

  #fullError(channels: readonly string[]): ChannelkitError {
    const [first = '', ...others] = channels
    if (others.length === 0) return this.#options.fullError(first)
    return new ChannelkitError(
      'ERR_CHANNEL_FULL',
      `one of the channels ${channels.join(', ')} holds its capacity of messages; start more workers or raise its capacity`,
    )
  }
}

/** Work channels have a capacity to look at; clients are passed over when theirs is full. */
function isCounted({ kind, target }: Pick<OutboxSend, 'kind' | 'target'>): boolean {
  return kind === rowKind.work && !isReplyChannel(target)
}

function countsOf(sends: readonly OutboxSend[]): ReadonlyMap<string, number> {
  const counts = new Map<string, number>()
  for (const send of sends) {
    if (isCounted(send)) counts.set(send.target, (counts.get(send.target) ?? 0) + 1)
  }
  return counts
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
