export {
  type Auth,
  type BetterAuthLike,
  type BetterAuthOptions,
  betterAuthUser,
  type ForeignSessions,
  type PassportLike,
  passportUser,
  type UserOf,
} from './auth.ts'
export {
  type PostgresPoolLike,
  type PostgresStoreLike,
  type PostgresUpdatesOptions,
  withPostgresUpdates,
} from './postgres-updates.ts'
export { type RedisStoreLike, withRedisUpdates } from './redis-updates.ts'
export type { AuthConfig, SessionConfig } from './session-config.ts'
export type { SessionStore, StoredSession } from './session-store.ts'
export { type Secrets, signCookie, verifyCookie } from './signing.ts'
export { SqliteSessionStore, type SqliteSessionStoreOptions } from './sqlite-session-store.ts'
