import { createHash } from 'node:crypto'
import { ChannelkitError, shown } from '../../errors.ts'
import type { SqlDialect, TableNames } from './dialect.ts'
import { change, rows, type SqlWork } from './sql-client.ts'

/**
 * The tables, each with the site's prefix. Times are milliseconds since the epoch.
 *
 * - `message`: what waits, for work channels and inboxes alike; `id` is the order. `channel` is a
 *   work channel or an inbox, `kind` one of {@link rowKind}, `target` what the row is about,
 *   `content` encoded as in `codec.ts`.
 * - Group names stand in columns as in {@link groupKey}.
 * - `inbox`: the open inboxes, each with a lease its process renews.
 * - `membership`: who is in which group; `inbox` is empty for a work channel.
 * - `line`: for each reply channel with a turn that is held or a message that is ready, the turn's
 *   `token`, or null and the message's id in `ready_id`; see `sql-lines.ts`.
 * - `later`: what is not to be seen before `visible_at`, of one of the kinds in {@link laterKind};
 *   `name` tells it from the others of its channel.
 * - `process`: announcements, and on databases that remember no transactions each process's last one. `meta`: the schema version, and where needed {@link lockRows}.
 * - `outbox`: what transactions of the site have sent, until a writer puts it on its channel; see
 *   `sql-outbox.ts`. `kind` is `work` or `group` of {@link rowKind}, `target` a channel or a group, or
 *   {@link outboxLater} with a {@link LaterTarget} in JSON;
 *   `sent_at` the time from which its expiry counts. `room` is always 0: the table refuses a null,
 *   which the insert gives when the channel is full.
 */
export const schemaVersion = 4

/**
 * The rows of `meta` by which writers take turns, and those who claim, where a database has no other
 * lock for a transaction.
 */
export const lockRows = { write: 'write-lock', claim: 'claim-lock' } as const

/** `message.kind`. */
export const rowKind = {
  /** A message on a work channel; `target` is null. */
  work: 0,
  /** A message for one client; `target` is the reply channel behind the `!`. */
  reply: 1,
  /** A message for the group `target`. */
  group: 2,
  /** That the reply channel `target` joined a group; `content` is JSON `[group, expiresAt]`. */
  add: 3,
  /** That the reply channel `target` left a group; `content` is JSON `[group]`. */
  discard: 4,
  /** A message of the line `target` that waits for its turn, on {@link parkedChannel}. */
  parked: 5,
} as const

/** `later.kind`. */
export const laterKind = {
  /** Sent for later. */
  delayed: 0,
  /** The same, and its name is remembered. */
  once: 1,
  /** Taken by who has yet to settle it; `message_id` is its id. */
  held: 2,
  /** To be tried again. */
  again: 3,
  /** The name of a `once` that was delivered. */
  spent: 4,
} as const

/** `outbox.kind` of a message for later. */
export const outboxLater = 6

/** `outbox.target` of a message for later. */
export type LaterTarget = readonly [channel: string, id: string, once: boolean, deliverAt: number]

/** Where what is parked for a channel lies, out of the way of claims: no channel has such a name. */
export function parkedChannel(channel: string): string {
  return `~${channel}`
}

/**
 * Expiry of changes of membership: they go only with their inbox, since losing one would change
 * who hears a group.
 */
export const neverMs = Number.MAX_SAFE_INTEGER

/**
 * A group's name in a column: as it is, but for quotes, backslashes and control characters, which
 * are escaped as in JSON. Databases differ in what they make of NUL.
 */
export function groupKey(group: string): string {
  return JSON.stringify(group).slice(1, -1)
}

/** Reverses {@link groupKey}. */
export function groupOfKey(key: string): string {
  return JSON.parse(`"${key}"`) as string
}

/** What was stored as text, which some databases give as bytes. */
export function textOf(content: unknown): string {
  return content instanceof Uint8Array ? Buffer.from(content).toString() : String(content)
}

const plainLine = /^[\w.!-]{1,200}$/

/**
 * A line's name in a column: as it is when it is a channel's name, else a hash, since databases bound
 * a key's length and differ in what they make of some characters.
 */
export function lineKey(line: string): string {
  if (plainLine.test(line)) return line
  return `~${createHash('sha256').update(JSON.stringify(line)).digest('base64url')}`
}

const prefixPattern = /^[A-Za-z_][A-Za-z0-9_]{0,39}$/

/**
 * Names the tables of a site.
 *
 * @param schema - a name without quotes in it, where tables stand in one.
 * @throws {ChannelkitError} `ERR_INVALID_CONFIG` when the prefix could be more than a part of a name.
 */
export function tableNames(prefix: string, schema?: string): TableNames {
  if (typeof prefix !== 'string' || !prefixPattern.test(prefix)) {
    throw new ChannelkitError(
      'ERR_INVALID_CONFIG',
      `tablePrefix is ${shown(prefix)}; give 1-40 of A-Z a-z 0-9 _, not starting with a digit`,
    )
  }
  const name = (table: string): string => {
    return schema === undefined ? prefix + table : `"${schema}".${prefix}${table}`
  }
  return Object.freeze({
    meta: name('meta'),
    message: name('message'),
    inbox: name('inbox'),
    membership: name('membership'),
    line: name('line'),
    later: name('later'),
    process: name('process'),
    outbox: name('outbox'),
  })
}

/**
 * Tells whether the tables are there in this version.
 *
 * @throws {ChannelkitError} `ERR_INVALID_CONFIG` when a newer Channelkit made them.
 */
export function* isSchemaMade(dialect: SqlDialect, tables: TableNames): SqlWork<boolean> {
  if (!(yield* dialect.hasTable(tables.meta))) return false
  const found = yield* rows<{ readonly value: string }>(
    `SELECT value FROM ${tables.meta} WHERE name = ?`,
    ['schema-version'],
  )
  const version = Number(found[0]?.value ?? 0)
  if (version > schemaVersion) {
    throw new ChannelkitError(
      'ERR_INVALID_CONFIG',
      `the tables ${tables.message} and others have schema version ${version}, newer than ${schemaVersion}; run the same version of Channelkit everywhere, or use another tablePrefix`,
    )
  }
  return version === schemaVersion
}

/**
 * Creates what is missing; each version has all that the one before had as it was. Other processes may do the
 * same at the same time.
 *
 * @throws {ChannelkitError} `ERR_INVALID_CONFIG` when something is missing and `mayMake` is false.
 */
export function* makeSchema(
  dialect: SqlDialect,
  tables: TableNames,
  mayMake = true,
): SqlWork<void> {
  if (yield* isSchemaMade(dialect, tables)) return
  if (!mayMake) {
    throw new ChannelkitError(
      'ERR_INVALID_CONFIG',
      `the tables ${tables.message} and others are missing or older than schema version ${schemaVersion}; run "channelkit migrate", or let the backend make them with migrate: 'auto'`,
    )
  }
  for (const text of dialect.createTables(tables)) yield* change(text, [])
  yield* change(
    `INSERT INTO ${tables.meta} (name, value) VALUES (?, ?) ${dialect.overwrite(['name'], ['value'])}`,
    ['schema-version', String(schemaVersion)],
  )
}
