import type { SqlDialect, TableNames } from './dialect.ts'
import { neverMs, parkedChannel } from './schema.ts'
import { change, rows, type SqlValue, type SqlWork } from './sql-client.ts'

/** Columns of a new row of `message`, in the order of its insert. */
export type NewRow = readonly [
  channel: string,
  kind: number,
  target: string | null,
  content: string | Uint8Array | null,
  expiresAt: number,
  attempts: number,
]

/** Columns of a row of `later`, in the order of its insert. */
export type NewLater = readonly [
  channel: string,
  name: string,
  kind: number,
  messageId: number | null,
  visibleAt: number,
  content: string | Uint8Array | null,
  expiresAt: number,
  attempts: number,
]

/** Columns of a membership, in the order of its insert. */
export type NewMembership = readonly [
  groupKey: string,
  inbox: string,
  channel: string,
  expiresAt: number,
]

// One statement for up to so many rows: beyond it a row costs no less, and a database bounds the
// number of parameters (SQLite from 999 on).
const mostRowsPerStatement = 64

/** The statements that are the same on every database, for the tables of one site. */
export class Statements {
  readonly tables: TableNames
  readonly dialect: SqlDialect
  readonly #insertRows: ManyRows
  readonly #insertWithIds: ManyRows
  readonly #upsertMemberships: ManyRows
  readonly #upsertLines: ManyRows
  readonly #insertLater: ManyRows
  readonly #texts: {
    readonly inbox: string
    readonly waiting: string
    readonly inboxesOfGroup: string
    readonly membersOfGroup: string
  }

  constructor(dialect: SqlDialect, tables: TableNames) {
    this.dialect = dialect
    this.tables = tables
    const { message, inbox, membership, line, later } = tables
    const columns = 'channel, kind, target, content, expires_at, attempts'
    this.#insertRows = new ManyRows(6, (tuples) => `INSERT INTO ${message} (${columns}) ${tuples}`)
    this.#insertWithIds = new ManyRows(
      7,
      (tuples) => `INSERT INTO ${message} (id, ${columns}) ${tuples} ${dialect.keep(['id'])}`,
    )
    const overwrite = dialect.overwrite(['group_name', 'inbox', 'channel'], ['expires_at'])
    this.#upsertMemberships = new ManyRows(
      4,
      (tuples) =>
        `INSERT INTO ${membership} (group_name, inbox, channel, expires_at) ${tuples} ${overwrite}`,
    )
    const overwriteLine = dialect.overwrite(['name'], ['token', 'ready_id', 'expires_at'])
    this.#upsertLines = new ManyRows(
      4,
      (tuples) =>
        `INSERT INTO ${line} (name, token, ready_id, expires_at) ${tuples} ${overwriteLine}`,
    )
    this.#insertLater = new ManyRows(
      8,
      (tuples) =>
        `INSERT INTO ${later}
           (channel, name, kind, message_id, visible_at, content, expires_at, attempts)
         ${tuples} ${dialect.keep(['name', 'channel'])}`,
    )
    const waiting = `SELECT count(*) FROM
      (SELECT 1 FROM ${message} WHERE channel = ? AND expires_at > ? AND expires_at < ${neverMs} LIMIT ?)
      AS live`
    this.#texts = {
      waiting: `SELECT (${waiting}) AS waiting, (${waiting}) AS parked`,
      inbox: `SELECT (${waiting}) AS waiting,
        EXISTS (SELECT 1 FROM ${inbox} WHERE name = ?) AS is_open`,
      // Jumps from inbox to inbox, so that the cost is by inboxes and not by members.
      inboxesOfGroup: `WITH RECURSIVE step (inbox) AS (
          SELECT min(inbox) FROM ${membership} WHERE group_name = ?
          UNION ALL
          SELECT (SELECT min(inbox) FROM ${membership} WHERE group_name = ? AND inbox > step.inbox)
          FROM step WHERE step.inbox IS NOT NULL
        )
        SELECT inbox FROM step WHERE inbox IS NOT NULL AND EXISTS (
          SELECT 1 FROM ${membership} AS live
          WHERE live.group_name = ? AND live.inbox = step.inbox AND live.expires_at > ?
        )`,
      membersOfGroup: `SELECT channel FROM ${membership}
        WHERE group_name = ? AND inbox = ? AND expires_at > ?`,
    }
  }

  /** Inserts rows, in order. */
  insert(newRows: readonly NewRow[]): SqlWork<void> {
    return this.#insertRows.run(newRows)
  }

  /** Puts rows back under the ids they had. */
  insertWithIds(newRows: readonly (readonly SqlValue[])[]): SqlWork<void> {
    return this.#insertWithIds.run(newRows)
  }

  upsertMemberships(memberships: readonly NewMembership[]): SqlWork<void> {
    return this.#upsertMemberships.run(memberships)
  }

  /** Writes rows `[name, token, ready_id, expires_at]` over what there is of those lines. */
  upsertLines(lines: readonly (readonly SqlValue[])[]): SqlWork<void> {
    return this.#upsertLines.run(lines)
  }

  /** Keeps rows until their times, but for those whose name their channel has. */
  insertLater(newRows: readonly NewLater[]): SqlWork<void> {
    return this.#insertLater.run(newRows)
  }

  /** How many live messages of a work channel lie on it and are parked, each counted up to `most`. */
  *waiting(
    channel: string,
    now: number,
    most: number,
  ): SqlWork<{ readonly waiting: number; readonly parked: number }> {
    const [row] = yield* rows<{ readonly waiting: number; readonly parked: number }>(
      this.#texts.waiting,
      [channel, now, most, parkedChannel(channel), now, most],
    )
    return { waiting: Number(row?.waiting), parked: Number(row?.parked) }
  }

  /** The same for an inbox, and whether it is open. */
  *inbox(
    name: string,
    now: number,
    most: number,
  ): SqlWork<{ readonly waiting: number; readonly isOpen: boolean }> {
    const [row] = yield* rows<{ readonly waiting: number; readonly is_open: number }>(
      this.#texts.inbox,
      [name, now, most, name],
    )
    return { waiting: Number(row?.waiting), isOpen: Boolean(row?.is_open) }
  }

  /** The inboxes with live members of a group; the empty name stands for its work channels. */
  *inboxesOfGroup(group: string, now: number): SqlWork<readonly string[]> {
    const found = yield* rows<{ readonly inbox: string }>(this.#texts.inboxesOfGroup, [
      group,
      group,
      group,
      now,
    ])
    return found.map(({ inbox }) => inbox)
  }

  *workMembers(group: string, now: number): SqlWork<readonly string[]> {
    const found = yield* rows<{ readonly channel: string }>(this.#texts.membersOfGroup, [
      group,
      '',
      now,
    ])
    return found.map(({ channel }) => channel)
  }

  deleteMembership(group: string, inbox: string, channel: string): SqlWork<number> {
    return change(
      `DELETE FROM ${this.tables.membership} WHERE group_name = ? AND inbox = ? AND channel = ?`,
      [group, inbox, channel],
    )
  }

  /** Records an inbox as open until `expiresAt`, or renews it. */
  upsertInbox(name: string, expiresAt: number): SqlWork<number> {
    return change(
      `INSERT INTO ${this.tables.inbox} (name, expires_at) VALUES (?, ?)
       ${this.dialect.overwrite(['name'], ['expires_at'])}`,
      [name, expiresAt],
    )
  }

  /** Forgets an inbox, what lies in it and its memberships; returns how many messages that were. */
  *deleteInbox(name: string): SqlWork<number> {
    const { inbox, membership } = this.tables
    yield* change(`DELETE FROM ${inbox} WHERE name = ?`, [name])
    yield* change(`DELETE FROM ${membership} WHERE inbox = ?`, [name])
    const messages = yield* this.dialect.deleteOn(this.tables, name, neverMs - 1)
    yield* this.dialect.deleteOn(this.tables, name, neverMs)
    return messages
  }
}

/** An insert of many rows by few statements: of 64 rows, and of each smaller power of two. */
class ManyRows {
  readonly #texts = new Map<number, string>()
  readonly #columnCount: number
  readonly #write: (tuples: string) => string

  constructor(columnCount: number, write: (tuples: string) => string) {
    this.#columnCount = columnCount
    this.#write = write
  }

  *run(newRows: readonly (readonly SqlValue[])[]): SqlWork<void> {
    let done = 0
    for (let size = mostRowsPerStatement; done < newRows.length; ) {
      if (newRows.length - done < size) {
        size /= 2
        continue
      }
      const values: SqlValue[] = []
      for (let index = done; index < done + size; index++) {
        const row = newRows[index] as readonly SqlValue[]
        for (let column = 0; column < row.length; column++) values.push(row[column] as SqlValue)
      }
      yield* change(this.#text(size), values)
      done += size
    }
  }

  #text(size: number): string {
    let text = this.#texts.get(size)
    if (text === undefined) {
      const tuple = `(${Array(this.#columnCount).fill('?').join(', ')})`
      text = this.#write(`VALUES ${Array(size).fill(tuple).join(', ')}`)
      this.#texts.set(size, text)
    }
    return text
  }
}
