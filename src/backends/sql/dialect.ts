import type { Content } from '../../content.ts'
import type { LineTurn, MessageHold } from '../channel-backend.ts'
import type { SqlValue, SqlWork } from './sql-client.ts'

/** The tables of one site, by what they hold. */
export interface TableNames {
  readonly meta: string
  readonly message: string
  readonly inbox: string
  readonly membership: string
  readonly line: string
  readonly later: string
  readonly process: string
  readonly outbox: string
}

/** A row of the message table; see `schema.ts`. */
export interface MessageRow {
  readonly id: number
  readonly kind: number
  readonly target: string | null
  readonly content: string | Uint8Array | null
  readonly expires_at: number
  readonly attempts: number
  /** The turn that came with it, and its content where that was read for it. */
  readonly turn?: LineTurn | undefined
  readonly hold?: MessageHold | undefined
  readonly decoded?: Content | undefined
}

/** A row of a work channel or of what is parked, with the name it lies under. */
export interface PlacedRow extends MessageRow {
  readonly channel: string
}

/** A row of the outbox table; see `schema.ts`. */
export interface OutboxRow {
  readonly id: number
  readonly kind: number
  readonly target: string
  readonly content: string | Uint8Array
  readonly sent_at: number | null
}

/** A condition, and the values of its parameters in order. */
export interface Condition {
  readonly text: string
  readonly values: readonly SqlValue[]
}

/** What differs between databases in the statements; what differs in the wire is the client's. */
export interface SqlDialect {
  /** Statements that create the tables where they are missing. */
  createTables(tables: TableNames): readonly string[]
  /** Whether a table is there. */
  hasTable(table: string): SqlWork<boolean>
  /** Those of `channels` on which any row lies. */
  occupied(tables: TableNames, channels: readonly string[]): SqlWork<readonly string[]>
  /**
   * Deletes the oldest `most` rows of a channel and returns them, oldest first. No other process
   * can be given one of them.
   */
  claim(tables: TableNames, channel: string, most: number): SqlWork<readonly MessageRow[]>
  /** Deletes the rows of `message` whose ids `select` gives, and returns them in no order. */
  take(
    tables: TableNames,
    select: string,
    values: readonly SqlValue[],
  ): SqlWork<readonly PlacedRow[]>
  /** Deletes the oldest `most` rows of the outbox that are committed, and returns them, oldest first. */
  takeOutbox(tables: TableNames, most: number): SqlWork<readonly OutboxRow[]>
  /**
   * Whether a statement of the site's transaction may look at `message` without standing in others'
   * way; else room is looked for on a connection of our own.
   */
  readonly looksWithinSiteTransaction: boolean
  /** Text, or bytes as {@link contentOf} reads them, as an expression without parameters. */
  literal(value: string | Uint8Array): string
  /** Deletes at most `most` rows of `message` that have expired and returns how many. */
  deleteExpired(tables: TableNames, now: number, most: number): SqlWork<number>
  /** Deletes what expires by `until` on one channel and nobody else is taking; returns how many. */
  deleteOn(tables: TableNames, channel: string, until: number): SqlWork<number>
  /** A condition that a column is one of some texts. */
  among(column: string, texts: readonly string[]): Condition
  /** The content of a row as it was stored. */
  contentOf(content: unknown): MessageRow['content']
  /** What follows `INSERT ... VALUES ...` so that a row with these keys is overwritten. */
  overwrite(keys: readonly string[], columns: readonly string[]): string
  /** What follows `INSERT ... VALUES ...` so that a row with these keys stays as it is. */
  keep(keys: readonly string[]): string
}
