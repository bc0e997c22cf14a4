import { ChannelkitError, shown } from '../../errors.ts'
import type { BackendOptions } from '../channel-backend.ts'
import type { EncryptionOptions } from '../content-seal.ts'
import { ServerClock } from '../server-clock.ts'
import { PostgresClient } from './postgres-client.ts'
import { postgresDialect } from './postgres-dialect.ts'
import type { PostgresPool } from './postgres-driver.ts'
import { SqlBackend } from './sql-backend.ts'
import { checkMigrate, checkServerOption, type MigrateOption } from './sql-options.ts'

export type { EncryptionOptions } from '../content-seal.ts'
export type { PostgresConnection, PostgresPool } from './postgres-driver.ts'
export type { MigrateOption } from './sql-options.ts'
/** Options of {@link PostgresBackend}. */
export interface PostgresBackendOptions extends BackendOptions {
  /** `postgres://user:password@host:port/database`, with parameters of `pg` behind a `?`. */
  readonly url?: string
  /** Instead of `url`: a `Pool` of `pg`, which stays the site's, or the options of one. */
  readonly pool?: PostgresPool | object
  /** Most connections of this process, besides the one that listens; 2 or more. Default 3. */
  readonly poolSize?: number
  /** The schema its tables stand in. Default `public`. */
  readonly schema?: string
  /** Start of the tables' names: 1-40 of `A-Z a-z 0-9 _`. Default `channelkit_`. */
  readonly tablePrefix?: string
  /**
   * Whether the tables are made and brought up to date on first use: `auto`, or `manual` for by
   * `channelkit migrate`. Default `auto`, and `manual` with `NODE_ENV=production`.
   */
  readonly migrate?: MigrateOption
  /**
   * Whether a pooler such as PgBouncer in transaction mode stands in front of the server. Then
   * nothing is kept on a connection, and `listenUrl` is needed to be woken at once. Default false.
   */
  readonly pgbouncer?: boolean
  /**
   * Where to listen for signs of new messages, past a pooler; `false` for not at all: then the
   * tables are looked into every 2 to 100 ms. Default where everything else goes.
   */
  readonly listenUrl?: string | false
  /**
   * How long a call waits for a server that does not answer or other processes' transactions
   * before it rejects with `ERR_BACKEND_UNAVAILABLE`, in milliseconds. Default 5,000.
   */
  readonly busyMs?: number
  /** Encrypts the content of messages; names stay clear. Default none. */
  readonly encryption?: EncryptionOptions
}

const schemaPattern = /^[A-Za-z_][A-Za-z0-9_]{0,62}$/

/** Carries messages between the processes of any number of machines through PostgreSQL 13 or newer. */
export class PostgresBackend extends SqlBackend {
  /** @throws {ChannelkitError} `ERR_INVALID_CONFIG` */
  constructor(options: PostgresBackendOptions) {
    const {
      url,
      pool,
      poolSize = 3,
      schema = 'public',
      tablePrefix = 'channelkit_',
      migrate,
      pgbouncer = false,
      listenUrl,
      busyMs = 5_000,
      encryption,
      ...limits
    } = options
    const given = pool ?? (url === undefined ? undefined : { connectionString: url })
    if (typeof given !== 'object' || (url !== undefined && typeof url !== 'string')) {
      throw new ChannelkitError(
        'ERR_INVALID_CONFIG',
        `url is ${shown(url)}; give postgres://USER@HOST/DATABASE, or a pool`,
      )
    }
    if (typeof schema !== 'string' || !schemaPattern.test(schema)) {
      throw new ChannelkitError(
        'ERR_INVALID_CONFIG',
        `schema is ${shown(schema)}; give 1-63 of A-Z a-z 0-9 _, not starting with a digit`,
      )
    }
    checkServerOption('poolSize', poolSize, 2)
    checkServerOption('busyMs', busyMs, 1)
    const serverClock = limits.clock ? undefined : new ServerClock()
    super(
      { ...limits, clock: limits.clock ?? serverClock },
      {
        dialect: postgresDialect,
        tablePrefix,
        schema,
        mayMigrate: checkMigrate(migrate) === 'auto',
        encryption,
        connect: (preparation) =>
          new PostgresClient({
            schema,
            tablePrefix,
            pool: given,
            listen: typeof listenUrl === 'string' ? { connectionString: listenUrl } : listenUrl,
            poolSize,
            busyMs,
            isPooled: pgbouncer,
            preparation,
            clock: serverClock,
          }),
      },
    )
  }
}
