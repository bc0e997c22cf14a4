import type { MessageRow, OutboxRow, PlacedRow, SqlDialect, TableNames } from './dialect.ts'
import { rowKind } from './schema.ts'
import { change, rows, type SqlValue, type SqlWork } from './sql-client.ts'

/** libsql gives bytes as an `ArrayBuffer`. */
type DriverRow = Omit<MessageRow, 'content'> & {
  readonly content: MessageRow['content'] | ArrayBuffer
}

function withBytes(row: DriverRow): MessageRow {
  const { content } = row
  if (content instanceof ArrayBuffer) return { ...row, content: new Uint8Array(content) }
  return row as MessageRow
}

/**
 * AUTOINCREMENT, since an id that is used again once the table is empty would let `handBack` put a
 * message in front of others. The index on `(channel, id, expires_at)` serves the claim and covers
 * the count of live rows.
 */
export const sqliteDialect: SqlDialect = {
  createTables: ({ meta, message, inbox, membership, line, later, process, outbox }) => [
    `CREATE TABLE IF NOT EXISTS ${meta} (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID`,
    `CREATE TABLE IF NOT EXISTS ${message} (
      id INTEGER PRIMARY KEY AUTOINCREMENT,
      channel TEXT NOT NULL,
      kind INTEGER NOT NULL,
      target TEXT,
      content BLOB,
      expires_at INTEGER NOT NULL,
      attempts INTEGER NOT NULL
    )`,
    `CREATE INDEX IF NOT EXISTS ${message}_by_channel ON ${message} (channel, id, expires_at)`,
    `CREATE INDEX IF NOT EXISTS ${message}_by_expiry ON ${message} (expires_at)`,
    `CREATE TABLE IF NOT EXISTS ${inbox} (
      name TEXT PRIMARY KEY,
      expires_at INTEGER NOT NULL
    ) WITHOUT ROWID`,
    `CREATE TABLE IF NOT EXISTS ${membership} (
      group_name TEXT NOT NULL,
      inbox TEXT NOT NULL,
      channel TEXT NOT NULL,
      expires_at INTEGER NOT NULL,
      PRIMARY KEY (group_name, inbox, channel)
    ) WITHOUT ROWID`,
    `CREATE INDEX IF NOT EXISTS ${membership}_by_inbox ON ${membership} (inbox)`,
    `CREATE INDEX IF NOT EXISTS ${message}_by_line ON ${message} (target, id, expires_at)
      WHERE kind = ${rowKind.parked}`,
    `CREATE TABLE IF NOT EXISTS ${line} (
      name TEXT PRIMARY KEY,
      token TEXT,
      ready_id INTEGER,
      expires_at INTEGER NOT NULL
    ) WITHOUT ROWID`,
    `CREATE TABLE IF NOT EXISTS ${later} (
      id INTEGER PRIMARY KEY AUTOINCREMENT,
      channel TEXT NOT NULL,
      name TEXT NOT NULL,
      kind INTEGER NOT NULL,
      message_id INTEGER,
      visible_at INTEGER NOT NULL,
      content BLOB,
      expires_at INTEGER NOT NULL,
      attempts INTEGER NOT NULL,
      UNIQUE (name, channel)
    )`,
    `CREATE INDEX IF NOT EXISTS ${later}_by_time ON ${later} (visible_at)`,
    `CREATE INDEX IF NOT EXISTS ${later}_by_channel ON ${later} (channel, kind)`,
    `CREATE TABLE IF NOT EXISTS ${process} (
      id TEXT PRIMARY KEY,
      info TEXT NOT NULL,
      expires_at INTEGER NOT NULL
    ) WITHOUT ROWID`,
    `CREATE TABLE IF NOT EXISTS ${outbox} (
      id INTEGER PRIMARY KEY AUTOINCREMENT,
      kind INTEGER NOT NULL,
      target TEXT NOT NULL,
      content BLOB NOT NULL,
      sent_at INTEGER,
      room INTEGER NOT NULL DEFAULT 0
    )`,
  ],

  *hasTable(table: string): SqlWork<boolean> {
    const found = yield* rows("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", [
      table,
    ])
    return found.length > 0
  },

  *occupied({ message }: TableNames, channels: readonly string[]): SqlWork<readonly string[]> {
    const found = yield* rows<{ readonly value: string }>(
      `SELECT value FROM json_each(?)
       WHERE EXISTS (SELECT 1 FROM ${message} WHERE channel = value)`,
      [JSON.stringify(channels)],
    )
    return found.map(({ value }) => value)
  },

  *claim({ message }: TableNames, channel: string, most: number): SqlWork<readonly MessageRow[]> {
    const taken = yield* rows<DriverRow>(
      `DELETE FROM ${message}
       WHERE id IN (SELECT id FROM ${message} WHERE channel = ? ORDER BY id LIMIT ?)
       RETURNING id, kind, target, content, expires_at, attempts`,
      [channel, most],
    )
    // SQLite promises no order for RETURNING.
    return taken.map(withBytes).sort((a, b) => a.id - b.id)
  },

  *take(
    { message }: TableNames,
    select: string,
    values: readonly SqlValue[],
  ): SqlWork<readonly PlacedRow[]> {
    return yield* rows<PlacedRow>(
      `DELETE FROM ${message} WHERE id IN (${select})
       RETURNING id, channel, kind, target, content, expires_at, attempts`,
      values,
    )
  },

  *takeOutbox({ outbox }: TableNames, most: number): SqlWork<readonly OutboxRow[]> {
    const taken = yield* rows<OutboxRow>(
      `DELETE FROM ${outbox} WHERE id IN (SELECT id FROM ${outbox} ORDER BY id LIMIT ?)
       RETURNING id, kind, target, content, sent_at`,
      [most],
    )
    return [...taken].sort((a, b) => a.id - b.id)
  },

  looksWithinSiteTransaction: true,

  literal: (value) => {
    const hex = `x'${Buffer.from(value as string).toString('hex')}'`
    return typeof value === 'string' ? `CAST(${hex} AS TEXT)` : hex
  },

  *deleteExpired({ message }: TableNames, now: number, most: number): SqlWork<number> {
    return yield* change(
      `DELETE FROM ${message}
       WHERE id IN (SELECT id FROM ${message} WHERE expires_at <= ? LIMIT ?)`,
      [now, most],
    )
  },

  deleteOn: ({ message }: TableNames, channel: string, until: number): SqlWork<number> =>
    change(`DELETE FROM ${message} WHERE channel = ? AND expires_at <= ?`, [channel, until]),

  among: (column, texts) => ({
    text: `${column} IN (SELECT value FROM json_each(?))`,
    values: [JSON.stringify(texts)],
  }),

  contentOf: (content) =>
    content instanceof ArrayBuffer ? new Uint8Array(content) : (content as MessageRow['content']),

  overwrite: (keys, columns) =>
    `ON CONFLICT (${keys.join(', ')}) DO UPDATE SET ${columns
      .map((column) => `${column} = excluded.${column}`)
      .join(', ')}`,

  keep: (keys) => `ON CONFLICT (${keys.join(', ')}) DO NOTHING`,
}
