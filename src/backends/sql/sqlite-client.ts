import { realpathSync, statSync } from 'node:fs'
import { ChannelkitError, shown } from '../../errors.ts'
import { FileWatch, touch } from './file-watch.ts'
import type {
  SqlClient,
  SqlPreparation,
  SqlResult,
  SqlWatch,
  SqlWork,
  WriteOptions,
  WriteWork,
} from './sql-client.ts'
import {
  loadSqliteDriver,
  SqliteConnection,
  type SqliteDatabase,
  type SqliteDriver,
  type SqliteDriverName,
} from './sqlite-driver.ts'
import { costsConnection, isBusy, sqliteFault } from './sqlite-fault.ts'

// A write holds the lock for about 0.1 ms, so trying again at once is cheaper than a timer.
const spinMs = 0.2
const firstDelayMs = 1
// Bounds the wait after the lock is free; a blocked process then tries 50 times a second.
const longestDelayMs = 20
// How often to look whether the file is still the one that was opened: often enough that hardly a
// message goes to a file that was deleted, and seldom under load, since a look costs 5 µs.
const lookMs = 5

// Pages in the write-ahead log, 16 MB, before some commit pays for copying them back and for the disk
// to follow, 3 ms. The same few pages are written over and over, so seldom costs less in all.
const checkpointPages = 4_000

export interface SqliteClientOptions {
  readonly file: string
  readonly driver: SqliteDatabase | SqliteDriverName | undefined
  readonly busyMs: number
  readonly preparation: SqlPreparation
}

/**
 * One connection to a SQLite file. Calls of the driver block the process, so SQLite itself never
 * waits for a lock (`busy_timeout` 0): this class does, between turns of the event loop.
 */
export class SqliteClient implements SqlClient {
  readonly busyMs: number
  readonly #options: SqliteClientOptions
  #open: SqliteDriver | undefined
  #connection: SqliteConnection | undefined
  #isPrepared = false
  /** Number of the opened file on its disk, or undefined for a handle that was given. */
  #inode: bigint | undefined
  #lookedAt = 0
  #wakePath: string | undefined
  #isClosed = false
  readonly #watches = new Set<FileWatch>()
  readonly #closing = new AbortController()

  constructor(options: SqliteClientOptions) {
    this.#options = options
    this.busyMs = options.busyMs
  }

  read<T>(work: () => SqlWork<T>): Promise<T> {
    return this.#run((connection) => drive(connection, work()))
  }

  async write<T>(work: WriteWork<T>, { since, stored }: WriteOptions<T> = {}): Promise<T> {
    const result = await this.#run((connection) => inTransaction(connection, work), since)
    if (stored && stored(result).size > 0) touch(this.#wakeFile())
    return result
  }

  watch(onChange: () => void): SqlWatch {
    const watch = new FileWatch(this.#wakeFile(), onChange)
    this.#watches.add(watch)
    return watch
  }

  async close(): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    for (const watch of this.#watches) watch.stop()
    this.#closing.abort()
    this.#disconnect()
  }

  /** Tries until the database is not busy, once and then until `busyMs` after `since`. */
  async #run<T>(attempt: (connection: SqliteConnection) => T, since?: number): Promise<T> {
    const { file, busyMs } = this.#options
    let startedAt = 0
    let delayMs = firstDelayMs
    while (true) {
      if (this.#isClosed) throw closedError()
      try {
        return attempt(this.#connected())
      } catch (error) {
        if (costsConnection(error)) this.#disconnect()
        const now = performance.now()
        startedAt ||= now
        const leftMs = (since ?? startedAt) + busyMs - now
        if (!isBusy(error)) throw sqliteFault(error, file, busyMs)
        if (leftMs <= 0) {
          // A statement that is not tried again could keep what is read at this state: see `exec`.
          this.#disconnect()
          throw sqliteFault(error, file, busyMs)
        }
        if (now - startedAt < spinMs) {
          await turn()
        } else {
          const jittered = Math.min(delayMs * (0.5 + Math.random()), leftMs)
          await pause(jittered, this.#closing.signal)
          delayMs = Math.min(delayMs * 2, longestDelayMs)
        }
      }
    }
  }

  /** The connection, new when there is none or its file was replaced. */
  #connected(): SqliteConnection {
    if (this.#connection) this.#checkFile()
    this.#connection ??= this.#connect()
    if (!this.#isPrepared) {
      const { preparation } = this.#options
      const connection = this.#connection
      if (!drive(connection, preparation.isMade())) {
        inTransaction(connection, () => preparation.make())
      }
      this.#isPrepared = true
    }
    return this.#connection
  }

  #connect(): SqliteConnection {
    const { driver, file } = this.#options
    if (typeof driver === 'object') return configured(new SqliteConnection(driver), file)
    this.#open ??= loadSqliteDriver(driver)
    const connection = new SqliteConnection(opened(this.#open, file))
    try {
      configured(connection, file)
      this.#inode = inodeOf(file)
      return connection
    } catch (error) {
      connection.close()
      throw error
    }
  }

  /** Lets go of a connection to a file that is no longer there under its name. */
  #checkFile(): void {
    if (this.#inode === undefined) return
    const now = performance.now()
    if (now - this.#lookedAt < lookMs) return
    this.#lookedAt = now
    if (inodeOf(this.#options.file) !== this.#inode) this.#disconnect()
  }

  /** Beside the database, like SQLite's own files, also when it is named through a link. */
  #wakeFile(): string {
    if (this.#wakePath === undefined) {
      try {
        this.#wakePath = `${realpathSync(this.#options.file)}-wake`
      } catch {
        // The database is not there yet.
        return `${this.#options.file}-wake`
      }
    }
    return this.#wakePath
  }

  #disconnect(): void {
    this.#isPrepared = false
    const connection = this.#connection
    this.#connection = undefined
    this.#inode = undefined
    // A handle that was given stays open: it is its owner's.
    if (typeof this.#options.driver === 'object') return
    try {
      connection?.close()
    } catch {
      // It was broken, which is why it is closed.
    }
  }
}

function opened(open: SqliteDriver, file: string): SqliteDatabase {
  try {
    return open(file)
  } catch (cause) {
    // libsql gives no code here.
    throw new ChannelkitError(
      'ERR_BACKEND_UNAVAILABLE',
      `the SQLite database ${file} cannot be opened; its directory must exist and be writable`,
      { cause },
    )
  }
}

function configured(connection: SqliteConnection, file: string): SqliteConnection {
  connection.all('PRAGMA busy_timeout = 0')
  const [mode] = connection.all('PRAGMA journal_mode = WAL')
  if (mode?.journal_mode !== 'wal') {
    throw new ChannelkitError(
      'ERR_INVALID_CONFIG',
      `${shown(file)} cannot be used by several processes, journal mode ${shown(mode?.journal_mode)}; name a file on a local disk, or use MemoryBackend within one process`,
    )
  }
  connection.run('PRAGMA synchronous = NORMAL')
  connection.all(`PRAGMA wal_autocheckpoint = ${checkpointPages}`)
  return connection
}

function inTransaction<T>(connection: SqliteConnection, work: () => SqlWork<T>): T {
  connection.exec('BEGIN IMMEDIATE')
  try {
    const result = drive(connection, work())
    connection.exec('COMMIT')
    return result
  } catch (error) {
    try {
      connection.exec('ROLLBACK')
    } catch {
      // SQLite has rolled back by itself, as it does on a full disk.
    }
    throw error
  }
}

function drive<T>(connection: SqliteConnection, work: SqlWork<T>): T {
  let step = work.next()
  while (!step.done) {
    const { text, values, returnsRows } = step.value
    const result: SqlResult = returnsRows
      ? { rows: connection.all(text, values), changes: 0 }
      : { rows: [], changes: connection.run(text, values) }
    step = work.next(result)
  }
  return step.value
}

function inodeOf(file: string): bigint | undefined {
  return statSync(file, { bigint: true, throwIfNoEntry: false })?.ino
}

function turn(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve)
  })
}

/** Waits, less when `signal` ends it. */
function pause(delayMs: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = (): void => {
      clearTimeout(timer)
      signal.removeEventListener('abort', end)
      resolve()
    }
    const timer = setTimeout(end, delayMs)
    signal.addEventListener('abort', end)
  })
}

function closedError(): ChannelkitError {
  return new ChannelkitError('ERR_BACKEND_CLOSED', 'the channel backend is closed; open a new one')
}
