import type { HeldMessage, HoldOptions } from '../channel-backend.ts'
import type { Encoded } from '../codec.ts'
import { holdName, type LaterMessage, rememberMs } from '../later.ts'
import type { MessageRow, SqlDialect, TableNames } from './dialect.ts'
import { laterKind, rowKind } from './schema.ts'
import { change, rows, type SqlValue, type SqlWork } from './sql-client.ts'
import type { NewLater, NewRow, Statements } from './statements.ts'

/** A row of the table `later`. */
interface LaterRow {
  readonly id: number
  readonly channel: string
  readonly name: string
  readonly kind: number
  readonly message_id: number | null
  readonly content: MessageRow['content']
  readonly expires_at: number
  readonly attempts: number
}

/** What {@link SqlLater} shares with the transaction it works in. */
export interface LaterWork {
  readonly now: number
  /** A row was put on this channel. */
  written(channel: string): void
  expired(count: number): void
  redelivered(): void
}

const columns = 'id, channel, name, kind, message_id, content, expires_at, attempts'

// So many ids in one statement.
const mostIds = 64

/** The statements of what is not to be seen yet: the table `later`, see `later.ts`. */
export class SqlLater {
  readonly #statements: Statements
  readonly #dialect: SqlDialect
  readonly #tables: TableNames
  readonly #newToken: () => string

  constructor(statements: Statements, newToken: () => string) {
    this.#statements = statements
    this.#dialect = statements.dialect
    this.#tables = statements.tables
    this.#newToken = newToken
  }

  /** How many messages were sent for later on a channel, counted up to `most`. */
  *delayed(channel: string, most: number): SqlWork<number> {
    const [found] = yield* rows<{ readonly waiting: number }>(
      `SELECT count(*) AS waiting FROM
         (SELECT 1 FROM ${this.#tables.later} WHERE channel = ? AND kind <= ${laterKind.once} LIMIT ?)
         AS live`,
      [channel, most],
    )
    return Number(found?.waiting)
  }

  /** Whether a channel takes so many messages, and those of these ids that it does not know. */
  *hasRoom(channel: string, count: number, ids: readonly string[], most: number): SqlWork<boolean> {
    let more = count
    for (const id of ids) if (!(yield* this.isKnown(channel, id))) more++
    return (yield* this.delayed(channel, most)) + more <= most
  }

  /** Whether a message of this name waits, or is remembered. */
  *isKnown(channel: string, name: string): SqlWork<boolean> {
    const found = yield* rows(
      `SELECT 1 FROM ${this.#tables.later} WHERE name = ? AND channel = ? LIMIT 1`,
      [name, channel],
    )
    return found.length > 0
  }

  /** Takes a message that waits for its time away; false when there is none. */
  *cancel(channel: string, id: string): SqlWork<boolean> {
    const changes = yield* change(
      `DELETE FROM ${this.#tables.later}
       WHERE name = ? AND channel = ? AND kind <= ${laterKind.once}`,
      [id, channel],
    )
    return changes > 0
  }

  /** Keeps rows that were taken; returns them with their holds. */
  *hold<Row extends MessageRow>(
    now: number,
    taken: readonly (Row & { readonly channel: string })[],
    { leaseMs }: HoldOptions,
  ): SqlWork<readonly (Row & { readonly channel: string })[]> {
    const expiresAt = now + leaseMs
    const held = taken.map((row) => ({ ...row, hold: { token: this.#newToken(), expiresAt } }))
    yield* this.#statements.insertLater(
      held.map(({ id, channel, content, expires_at, attempts, hold }) => {
        const name = holdName(hold.token)
        return [channel, name, laterKind.held, id, expiresAt, content, expires_at, attempts]
      }),
    )
    return held
  }

  /** The names of those of the messages that are held still. */
  *held(messages: readonly HeldMessage[]): SqlWork<Set<string>> {
    if (messages.length === 0) return new Set()
    const names = messages.map(({ hold }) => holdName(hold.token))
    const isNamed = this.#dialect.among('name', names)
    const found = yield* rows<{ readonly name: string }>(
      `SELECT name FROM ${this.#tables.later} WHERE kind = ${laterKind.held} AND ${isNamed.text}`,
      isNamed.values,
    )
    return new Set(found.map(({ name }) => String(name)))
  }

  /** Ends the holds of these names. */
  *end(names: readonly string[]): SqlWork<void> {
    if (names.length === 0) return
    const isNamed = this.#dialect.among('name', names)
    yield* change(`DELETE FROM ${this.#tables.later} WHERE ${isNamed.text}`, isNamed.values)
  }

  *renew(names: readonly string[], expiresAt: number): SqlWork<void> {
    if (names.length === 0) return
    const isNamed = this.#dialect.among('name', names)
    yield* change(
      `UPDATE ${this.#tables.later} SET visible_at = ?
       WHERE kind = ${laterKind.held} AND ${isNamed.text}`,
      [expiresAt, ...isNamed.values],
    )
  }

  /** When something is due next, in milliseconds since the epoch. */
  *nextAt(): SqlWork<number> {
    const [found] = yield* rows<{ readonly at: number | null }>(
      `SELECT min(visible_at) AS at FROM ${this.#tables.later}`,
      [],
    )
    return found?.at == null ? Number.POSITIVE_INFINITY : Number(found.at)
  }

  /**
   * Puts up to `most` rows that are due on their channels, in the order of their times: those that
   * were held where they were, the others at the end. Returns how many were due.
   */
  *release(work: LaterWork, most: number, expiryMs: number): SqlWork<number> {
    const due = yield* rows<LaterRow>(
      `SELECT ${columns} FROM ${this.#tables.later}
       WHERE visible_at <= ? ORDER BY visible_at, id LIMIT ?`,
      [work.now, most],
    )
    if (due.length === 0) return 0
    yield* this.#delete(due.map(({ id }) => id))
    const fresh: NewRow[] = []
    const back: (readonly SqlValue[])[] = []
    const spent: NewLater[] = []
    for (const { channel, name, kind, message_id, content, expires_at, attempts } of due) {
      if (kind === laterKind.spent) continue
      if (kind === laterKind.once) {
        spent.push([channel, name, laterKind.spent, null, work.now + rememberMs, null, 0, 0])
      }
      const stored = this.#dialect.contentOf(content)
      if (kind === laterKind.held) {
        const expiresAt = Math.max(expires_at, work.now + expiryMs)
        back.push([message_id, channel, rowKind.work, null, stored, expiresAt, attempts + 1])
        work.redelivered()
      } else if (expires_at > work.now) {
        fresh.push([channel, rowKind.work, null, stored, expires_at, attempts])
      } else {
        work.expired(1)
        continue
      }
      work.written(channel)
    }
    yield* this.#statements.insertLater(spent)
    yield* this.#statements.insertWithIds(back)
    yield* this.#statements.insert(fresh)
    return due.length
  }

  *#delete(ids: readonly number[]): SqlWork<void> {
    for (let done = 0; done < ids.length; done += mostIds) {
      const some = ids.slice(done, done + mostIds)
      // As long as the next power of two, by its last again, so that there are few texts.
      const length = 2 ** Math.ceil(Math.log2(some.length))
      const last = some.at(-1) as number
      const values = [...some, ...Array<number>(length - some.length).fill(last)]
      const marks = values.map(() => '?').join(', ')
      yield* change(`DELETE FROM ${this.#tables.later} WHERE id IN (${marks})`, values)
    }
  }
}

/** The row of a message that was sent for later. */
export function delayedRow(
  channel: string,
  { id, once, deliverAt, expiresAt }: LaterMessage,
  encoded: Encoded,
  attempts: number,
): NewLater {
  const kind = once ? laterKind.once : laterKind.delayed
  return [channel, id, kind, null, deliverAt, encoded, expiresAt, attempts]
}

/** The row of a message that is to be tried again, in the place of its hold. */
export function againRow(
  channel: string,
  token: string,
  deliverAt: number,
  encoded: Encoded,
  expiresAt: number,
  attempts: number,
): NewLater {
  return [channel, holdName(token), laterKind.again, null, deliverAt, encoded, expiresAt, attempts]
}
