import { resolve } from 'node:path'
import { ChannelkitError, shown } from '../../errors.ts'
import type { BackendOptions } from '../channel-backend.ts'
import type { EncryptionOptions } from '../content-seal.ts'
import { SqlBackend } from './sql-backend.ts'
import { SqliteClient } from './sqlite-client.ts'
import { sqliteDialect } from './sqlite-dialect.ts'
import type { SqliteDatabase, SqliteDriverName } from './sqlite-driver.ts'

export type { EncryptionOptions } from '../content-seal.ts'
export type { SqliteDatabase, SqliteDriverName, SqliteStatement } from './sqlite-driver.ts'
/** Options of {@link SqliteBackend}. */
export interface SqliteBackendOptions extends BackendOptions {
  /**
   * Path of the database, which is created when it is missing; its directory must be there. Best a
   * file of its own on a local disk: where this process opens the same file by another SQLite
   * library, the two do not see each other's locks and damage it (sqlite.org/howtocorrupt.html
   * section 2.2.1).
   */
  readonly file: string
  /**
   * An open database of `node:sqlite`, `libsql` or `better-sqlite3` on that file, which this
   * backend then has for itself and leaves open; or the driver to use. Default the first of these
   * three that is installed.
   */
  readonly driver?: SqliteDatabase | SqliteDriverName
  /** Start of the tables' names: 1-40 of `A-Z a-z 0-9 _`. Default `channelkit_`. */
  readonly tablePrefix?: string
  /**
   * How long a call waits for a database that another process has locked before it rejects with
   * `ERR_BACKEND_UNAVAILABLE`, in milliseconds. Default 5,000.
   */
  readonly busyMs?: number
  /** Encrypts the content of messages; names stay clear. Default none. */
  readonly encryption?: EncryptionOptions
}

/**
 * Carries messages between the processes of one machine through a SQLite file: nothing to install
 * or run beside the site.
 */
export class SqliteBackend extends SqlBackend {
  /** @throws {ChannelkitError} `ERR_INVALID_CONFIG` */
  constructor(options: SqliteBackendOptions) {
    const {
      file,
      driver,
      tablePrefix = 'channelkit_',
      busyMs = 5_000,
      encryption,
      ...limits
    } = options
    if (typeof file !== 'string' || file === '' || file.startsWith(':memory:')) {
      throw new ChannelkitError(
        'ERR_INVALID_CONFIG',
        `file is ${shown(file)}; give the path of a database file, or use MemoryBackend`,
      )
    }
    if (!Number.isInteger(busyMs) || busyMs < 1) {
      throw new ChannelkitError(
        'ERR_INVALID_CONFIG',
        `busyMs is ${shown(busyMs)}; give a whole number of milliseconds from 1`,
      )
    }
    super(limits, {
      dialect: sqliteDialect,
      tablePrefix,
      encryption,
      connect: (preparation) =>
        new SqliteClient({ file: resolve(file), driver, busyMs, preparation }),
    })
  }
}
