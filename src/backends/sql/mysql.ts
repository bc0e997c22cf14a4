import { ChannelkitError, shown } from '../../errors.ts'
import type { BackendOptions } from '../channel-backend.ts'
import type { EncryptionOptions } from '../content-seal.ts'
import { ServerClock } from '../server-clock.ts'
import { MysqlClient } from './mysql-client.ts'
import { mysqlDialect } from './mysql-dialect.ts'
import { SqlBackend } from './sql-backend.ts'
import { checkMigrate, checkServerOption, type MigrateOption } from './sql-options.ts'

export type { EncryptionOptions } from '../content-seal.ts'
export type { MigrateOption } from './sql-options.ts'
/** Options of {@link MysqlBackend}. */
export interface MysqlBackendOptions extends BackendOptions {
  /** `mysql://user:password@host:port/database` or `mariadb://…`. */
  readonly url?: string
  /** Instead of `url`: options of a pool of `mysql2`, such as `host`, `user`, `database`, `ssl`. */
  readonly pool?: object
  /** Most connections of this process; 2 or more. Default 3. */
  readonly poolSize?: number
  /** Start of the tables' names: 1-40 of `A-Z a-z 0-9 _`. Default `channelkit_`. */
  readonly tablePrefix?: string
  /**
   * Whether the tables are made and brought up to date on first use: `auto`, or `manual` for by
   * `channelkit migrate`. Default `auto`, and `manual` with `NODE_ENV=production`.
   */
  readonly migrate?: MigrateOption
  /**
   * How long a call waits for a server that does not answer or other processes' transactions
   * before it rejects with `ERR_BACKEND_UNAVAILABLE`, in milliseconds. Default 5,000.
   */
  readonly busyMs?: number
  /** Encrypts the content of messages; names stay clear. Default none. */
  readonly encryption?: EncryptionOptions
}

/**
 * Carries messages between the processes of any number of machines through MySQL 8.0 or MariaDB 10.6,
 * or newer. These wake nobody, so each process looks every 2 to 100 ms whether anything has come.
 */
export class MysqlBackend extends SqlBackend {
  /** @throws {ChannelkitError} `ERR_INVALID_CONFIG` */
  constructor(options: MysqlBackendOptions) {
    const {
      url,
      pool,
      poolSize = 3,
      tablePrefix = 'channelkit_',
      migrate,
      busyMs = 5_000,
      encryption,
      ...limits
    } = options
    const given = pool ?? (typeof url === 'string' ? { uri: mysqlUrl(url) } : undefined)
    if (typeof given !== 'object') {
      throw new ChannelkitError(
        'ERR_INVALID_CONFIG',
        `url is ${shown(url)}; give mysql://USER@HOST/DATABASE, or the options of a pool`,
      )
    }
    checkServerOption('poolSize', poolSize, 2)
    checkServerOption('busyMs', busyMs, 1)
    const serverClock = limits.clock ? undefined : new ServerClock()
    super(
      { ...limits, clock: limits.clock ?? serverClock },
      {
        dialect: mysqlDialect,
        tablePrefix,
        mayMigrate: checkMigrate(migrate) === 'auto',
        encryption,
        connect: (preparation) =>
          new MysqlClient({
            tablePrefix,
            pool: given,
            poolSize,
            busyMs,
            preparation,
            clock: serverClock,
          }),
      },
    )
  }
}

// A URL that the rest of the site uses too may have these, against which the driver lets us say nothing.
const foreignParameters = /(?<=[?&])(?:bigNumberStrings|rowsAsArray)=[^&#]*&?/g

/** The driver knows one name of the protocol. */
function mysqlUrl(url: string): string {
  return url.replace(/^mariadb:/, 'mysql:').replace(foreignParameters, '')
}
