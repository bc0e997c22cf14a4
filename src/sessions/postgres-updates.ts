import { systemClock } from '../internal/clock.ts'
import { updateOf } from './compare-and-set.ts'
import type { SessionStore, StoredSession } from './session-store.ts'

/** What is used of connect-pg-simple. */
export interface PostgresStoreLike extends SessionStore {
  readonly ttl?: number | undefined
}

/** What is used of a `Pool` of pg. */
export interface PostgresPoolLike {
  query(text: string, values: unknown[]): Promise<{ readonly rows: readonly unknown[] }>
}

/** Options of {@link withPostgresUpdates}. */
export interface PostgresUpdatesOptions {
  /** The pool of the store's database. */
  readonly pool: PostgresPoolLike
  /** The store's `tableName`. Default `session`. */
  readonly table?: string
  /** The store's `schemaName`. Default the one that the connection finds the table in. */
  readonly schema?: string
}

const dayS = 86_400

/**
 * Gives a store of connect-pg-simple the `update` that it lacks, so that no write is lost and what
 * has ended stays ended: `session: { store: withPostgresUpdates(store, { pool }), … }`.
 *
 * @returns the store itself.
 */
export function withPostgresUpdates<S extends PostgresStoreLike>(
  store: S,
  { pool, table = 'session', schema }: PostgresUpdatesOptions,
): S & Required<Pick<SessionStore, 'update'>> {
  const name = [...(schema === undefined ? [] : [schema]), table].map(quoted).join('.')
  const find = `SELECT sess::text AS text FROM ${name} WHERE sid = $1 AND expire >= now()`
  const replace = `UPDATE ${name} SET sess = $2, expire = to_timestamp($3)
    WHERE sid = $1 AND sess::text = $4 RETURNING sid`
  const insert = `INSERT INTO ${name} AS old (sid, sess, expire) VALUES ($1, $2, to_timestamp($3))
    ON CONFLICT (sid) DO UPDATE SET sess = excluded.sess, expire = excluded.expire
    WHERE old.expire < now() RETURNING sid`
  const update = updateOf({
    async find(sid) {
      const { rows } = await pool.query(find, [sid])
      const [row] = rows as readonly { readonly text: string }[]
      return row && { text: row.text, session: JSON.parse(row.text) as StoredSession }
    },
    async replace(sid, found, session) {
      const values = [sid, JSON.stringify(session), expiryOf(store, session)]
      const { rows } = found
        ? await pool.query(replace, [...values, found.text])
        : await pool.query(insert, values)
      return rows.length === 1
    },
  })
  return Object.assign(store, { update })
}

/** As the store itself reckons, in seconds since the epoch. */
function expiryOf({ ttl }: PostgresStoreLike, { cookie }: StoredSession): number {
  const expires = cookie?.expires
  const at = expires
    ? new Date(expires).getTime() / 1_000
    : systemClock.now() / 1_000 + (ttl || dayS)
  return Math.ceil(at)
}

function quoted(name: string): string {
  return `"${name.replaceAll('"', '""')}"`
}
