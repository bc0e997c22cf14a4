import { ChannelkitError } from '../../errors.ts'

/** What a column holds and a parameter takes. */
export type SqlValue = string | number | Uint8Array | null

/** One row by column name. */
export type SqlRow = Readonly<Record<string, SqlValue>>

/** One statement with `?` for each of its values, in order. */
export interface SqlQuery {
  /** A constant per table prefix and number of rows, since clients keep it prepared. */
  readonly text: string
  readonly values: readonly SqlValue[]
  readonly returnsRows: boolean
}

export interface SqlResult {
  readonly rows: readonly SqlRow[]
  /** How many rows the statement inserted, updated or deleted; 0 when it returns rows. */
  readonly changes: number
}

/**
 * Statements one after the other, as a generator that yields each and is given its result.
 *
 * So one text of the work serves every driver: a synchronous one runs it in one go, during which
 * nothing else happens in the process and the lock is held as briefly as can be; an asynchronous
 * one awaits each result. Work may be run again when its transaction is, so it keeps its results
 * in what it returns.
 */
export type SqlWork<T> = Generator<SqlQuery, T, SqlResult>

/** How work is written. */
export interface WriteOptions<T> {
  /**
   * When it was called for, by `performance.now()`: from then on `busyMs` count. Default from when
   * it first met a busy database.
   */
  readonly since?: number | undefined
  /** The channels and inboxes on which it stored something, whose receivers are woken. */
  readonly stored?: (result: T) => ReadonlySet<string>
}

/**
 * Work of a write transaction.
 *
 * @param hasOutbox - whether there are rows in the outbox, which are to go first; undefined when it
 *   is for the work to look. Others may commit some afterwards, whose turn comes next.
 */
export type WriteWork<T> = (hasOutbox?: boolean) => SqlWork<T>

/** The few things the backend asks of a database connection. */
export interface SqlClient {
  /** How long a call waits for a database that is busy, in milliseconds. */
  readonly busyMs: number
  /** Runs reads outside of a transaction. */
  read<T>(work: () => SqlWork<T>): Promise<T>
  /**
   * Runs `work` in one transaction that no other writer interleaves with, from the start again
   * when the database was busy.
   *
   * @throws {ChannelkitError} `ERR_BACKEND_UNAVAILABLE` with the driver's error as `cause`, in
   *   bounded time; nothing is written then, unless it is an {@link UnknownCommit}.
   */
  write<T>(work: WriteWork<T>, options?: WriteOptions<T>): Promise<T>
  /** Told that the next write will find rows in the outbox. */
  expectOutbox?(): void
  /**
   * An expression that wakes every process which waits for one of `channels` when the transaction
   * it is part of is committed. Left out where nobody can be woken so.
   */
  sign?(channels: readonly string[]): string
  /**
   * Runs `work` that only takes rows by the dialect's `claim`, beside whoever writes. Left out where
   * that is not faster than `write`, which then serves. When it rejects, what `work` has taken by
   * then is either back in its place or, where `keepsClaims`, the caller's.
   */
  claim?<T>(work: () => SqlWork<T>): Promise<T>
  /** Whether each statement of `claim` is a transaction of its own. Default false. */
  readonly keepsClaims?: boolean
  /** Makes a watch, which is paused; `close` ends it. */
  watch(onChange: OnChange): SqlWatch
  /** Releases the connection; idempotent. Calls that wait for the database reject. */
  close(): Promise<void>
}

/**
 * Told that something was stored: on some of these channels and inboxes, or, without any, that it
 * may have been on any.
 */
export type OnChange = (channels?: ReadonlySet<string>) => void

/**
 * Calls `onChange` soon after a `write` in any process stored something, this one included, and now
 * and then besides, in case a sign was lost.
 */
export interface SqlWatch {
  /** Calls from now on, and keeps the process alive. */
  resume(): void
  /** Calls no more until it is resumed. */
  pause(): void
  /** Told that a look found something: more may come soon. */
  foundSome?(): void
}

/** That a write may be stored or not, since the server went away during its commit. */
export class UnknownCommit extends ChannelkitError {
  /**
   * Asks again whether it was stored.
   *
   * @throws {ChannelkitError} `ERR_BACKEND_UNAVAILABLE` while that is not to be learnt.
   */
  readonly wasStored: () => Promise<boolean>

  constructor(server: string, cause: unknown, wasStored: () => Promise<boolean>) {
    super(
      'ERR_BACKEND_UNAVAILABLE',
      `${server} went away during a commit; what was sent may be stored or not`,
      { cause },
    )
    this.wasStored = wasStored
  }
}

/** What a client runs on each new connection before anything else. */
export interface SqlPreparation {
  /** Whether `make` may be left out; reads only. */
  isMade(): SqlWork<boolean>
  /** Runs in a write transaction. */
  make(): SqlWork<void>
}

/** Runs a statement that returns rows. */
export function* rows<Row>(text: string, values: readonly SqlValue[]): SqlWork<readonly Row[]> {
  const result = yield { text, values, returnsRows: true }
  return result.rows as readonly Row[]
}

/** Runs a statement that returns no rows; the result is how many rows it changed. */
export function* change(text: string, values: readonly SqlValue[]): SqlWork<number> {
  const result = yield { text, values, returnsRows: false }
  return result.changes
}
