import type { MessageRow, OutboxRow, PlacedRow, SqlDialect, TableNames } from './dialect.ts'
import { lockRows } from './schema.ts'
import { change, rows, type SqlValue, type SqlWork } from './sql-client.ts'

const columns = 'id, channel, kind, target, content, expires_at, attempts'

// Bounds one statement, and with it the number of texts that are kept prepared.
const mostInList = 256

/**
 * MySQL 8.0 or newer and MariaDB 10.6 or newer. Names stand in columns of bytes, since databases
 * with collations hold `a` and `A`, or `a` and `a` with a space behind it, for equal.
 *
 * MySQL has no `DELETE ... RETURNING`: rows are locked, read and then deleted, in one transaction.
 */
export const mysqlDialect: SqlDialect = {
  createTables: ({ meta, message, inbox, membership, line, later, process, outbox }) => [
    `CREATE TABLE IF NOT EXISTS ${meta} (
      name VARBINARY(64) PRIMARY KEY,
      value TEXT NOT NULL
    ) ENGINE = InnoDB`,
    `INSERT IGNORE INTO ${meta} (name, value)
      VALUES ('${lockRows.write}', ''), ('${lockRows.claim}', '')`,
    `CREATE TABLE IF NOT EXISTS ${message} (
      id BIGINT AUTO_INCREMENT PRIMARY KEY,
      channel VARBINARY(255) NOT NULL,
      kind SMALLINT NOT NULL,
      target VARBINARY(1400),
      content LONGBLOB,
      expires_at BIGINT NOT NULL,
      attempts INTEGER NOT NULL,
      INDEX by_channel (channel, id, expires_at),
      INDEX by_expiry (expires_at),
      INDEX by_line (kind, target, id, expires_at)
    ) ENGINE = InnoDB`,
    `CREATE TABLE IF NOT EXISTS ${inbox} (
      name VARBINARY(255) PRIMARY KEY,
      expires_at BIGINT NOT NULL
    ) ENGINE = InnoDB`,
    `CREATE TABLE IF NOT EXISTS ${membership} (
      group_name VARBINARY(1400) NOT NULL,
      inbox VARBINARY(255) NOT NULL,
      channel VARBINARY(255) NOT NULL,
      expires_at BIGINT NOT NULL,
      PRIMARY KEY (group_name, inbox, channel),
      INDEX by_inbox (inbox)
    ) ENGINE = InnoDB`,
    `CREATE TABLE IF NOT EXISTS ${line} (
      name VARBINARY(255) PRIMARY KEY,
      token VARBINARY(255),
      ready_id BIGINT,
      expires_at BIGINT NOT NULL
    ) ENGINE = InnoDB`,
    `CREATE TABLE IF NOT EXISTS ${later} (
      id BIGINT AUTO_INCREMENT PRIMARY KEY,
      channel VARBINARY(255) NOT NULL,
      name VARBINARY(255) NOT NULL,
      kind SMALLINT NOT NULL,
      message_id BIGINT,
      visible_at BIGINT NOT NULL,
      content LONGBLOB,
      expires_at BIGINT NOT NULL,
      attempts INTEGER NOT NULL,
      UNIQUE INDEX by_name (name, channel),
      INDEX by_time (visible_at),
      INDEX by_channel (channel, kind)
    ) ENGINE = InnoDB`,
    `CREATE TABLE IF NOT EXISTS ${process} (
      id VARBINARY(255) PRIMARY KEY,
      info LONGBLOB NOT NULL,
      expires_at BIGINT NOT NULL
    ) ENGINE = InnoDB`,
    `CREATE TABLE IF NOT EXISTS ${outbox} (
      id BIGINT AUTO_INCREMENT PRIMARY KEY,
      kind SMALLINT NOT NULL,
      target VARBINARY(1400) NOT NULL,
      content LONGBLOB NOT NULL,
      sent_at BIGINT,
      room SMALLINT NOT NULL DEFAULT 0
    ) ENGINE = InnoDB`,
  ],

  *hasTable(table: string): SqlWork<boolean> {
    const found = yield* rows(
      `SELECT 1 AS one FROM information_schema.tables
       WHERE table_schema = DATABASE() AND table_name = ?`,
      [table],
    )
    return found.length > 0
  },

  *occupied({ message }: TableNames, channels: readonly string[]): SqlWork<readonly string[]> {
    const each = `(SELECT channel FROM ${message} FORCE INDEX (by_channel) WHERE channel = ? LIMIT 1)`
    const found = yield* rows<{ readonly channel: string }>(
      Array(channels.length).fill(each).join(' UNION ALL '),
      channels,
    )
    return found.map(({ channel }) => channel)
  },

  *claim({ message }: TableNames, channel: string, most: number): SqlWork<readonly MessageRow[]> {
    const taken = yield* rows<MessageRow>(
      `SELECT ${columns} FROM ${message} FORCE INDEX (by_channel)
       WHERE channel = ? ORDER BY id LIMIT ? FOR UPDATE`,
      [channel, most],
    )
    yield* deleteRows(message, taken)
    return taken
  },

  *take(
    { message }: TableNames,
    select: string,
    values: readonly SqlValue[],
  ): SqlWork<readonly PlacedRow[]> {
    const picked = yield* rows<Identified>(select, values)
    const found: PlacedRow[] = []
    for (const ids of listsOf(picked.map(({ id }) => id))) {
      found.push(
        ...(yield* rows<PlacedRow>(
          `SELECT ${columns} FROM ${message} FORCE INDEX (PRIMARY)
           WHERE id IN (${marks(ids)}) FOR UPDATE`,
          ids,
        )),
      )
    }
    yield* deleteRows(message, found)
    return found
  },

  /** Read without a lock: only rows that are committed, and no waiting for those that are not. */
  *takeOutbox({ outbox }: TableNames, most: number): SqlWork<readonly OutboxRow[]> {
    const found = yield* rows<OutboxRow>(
      `SELECT id, kind, target, content, sent_at FROM ${outbox} ORDER BY id LIMIT ?`,
      [most],
    )
    yield* deleteRows(outbox, found)
    return found
  },

  // It would lock what it reads until the site commits.
  looksWithinSiteTransaction: false,

  literal: (value) => `x'${Buffer.from(value as string).toString('hex')}'`,

  *deleteExpired({ message }: TableNames, now: number, most: number): SqlWork<number> {
    const found = yield* rows<Identified>(
      `SELECT id FROM ${message} WHERE expires_at <= ? LIMIT ?`,
      [now, most],
    )
    return yield* deleteRows(message, found)
  },

  *deleteOn({ message }: TableNames, channel: string, until: number): SqlWork<number> {
    const found = yield* rows<Identified>(
      `SELECT id FROM ${message} WHERE channel = ? AND expires_at <= ?`,
      [channel, until],
    )
    return yield* deleteRows(message, found)
  },

  among(column, texts) {
    const values = padded(texts)
    return { text: `${column} IN (${marks(values)})`, values }
  },

  contentOf: (content) => content as MessageRow['content'],

  overwrite: (_keys, names) =>
    `ON DUPLICATE KEY UPDATE ${names.map((name) => `${name} = VALUES(${name})`).join(', ')}`,

  keep: ([key]) => `ON DUPLICATE KEY UPDATE ${key} = ${key}`,
}

interface Identified {
  readonly id: number
}

/**
 * By their ids and that index alone: a statement that reads along a range, or the whole of a small
 * table, locks rows that it then leaves alone, for which others would wait.
 */
function* deleteRows(message: string, found: readonly Identified[]): SqlWork<number> {
  let count = 0
  for (const ids of listsOf(found.map(({ id }) => id))) {
    const text = `DELETE doomed FROM ${message} AS doomed FORCE INDEX (PRIMARY)
      WHERE doomed.id IN (${marks(ids)})`
    count += yield* change(text, ids)
  }
  return count
}

function listsOf<T>(values: readonly T[]): readonly (readonly T[])[] {
  const lists: (readonly T[])[] = []
  for (let done = 0; done < values.length; done += mostInList) {
    lists.push(padded(values.slice(done, done + mostInList)))
  }
  return lists
}

/** As long as the next power of two, by its last value again, so that there are few texts. */
function padded<T>(values: readonly T[]): readonly T[] {
  const length = 2 ** Math.ceil(Math.log2(values.length))
  const last = values.at(-1)
  if (last === undefined) return values
  return [...values, ...Array<T>(length - values.length).fill(last)]
}

function marks(values: readonly unknown[]): string {
  return Array(values.length).fill('?').join(', ')
}
