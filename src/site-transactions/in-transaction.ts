import type { ChannelBackend } from '../backends/channel-backend.ts'
import { currentSite } from '../current-site.ts'
import { ChannelkitError, shown } from '../errors.ts'
import { type PlainConnection, plainTransaction } from './plain-transaction.ts'
import { runInTransaction, SiteTransaction, siteTransaction } from './site-transaction.ts'
import { statementRunner } from './statement-runner.ts'

/** How sends become part of a transaction. */
export interface TransactionOptions<Transaction = unknown> {
  /**
   * With `inTransaction`, sends to a SQL backend are written into its tables by the transaction
   * itself, so the tables must stand in the same database. With `afterCommit` they wait for the
   * commit, as they do on other backends. Default `inTransaction`.
   */
  readonly sends?: 'inTransaction' | 'afterCommit'
  /**
   * Runs a statement without parameters in the transaction, for libraries that are not known here.
   * Default by the kind of its handle.
   */
  readonly run?: (statement: string, transaction: Transaction) => unknown
}

/** Runs a transaction: begins it, calls `run` with its handle, and commits when that resolves. */
export type OpenTransaction<Transaction, T> = (
  run: (transaction: Transaction) => Promise<T>,
) => PromiseLike<T>

/**
 * Runs `work` in a transaction of the site's, of which what it sends by `Channel` and `Group` is
 * part: visible when it commits, and never when it rolls back.
 *
 * Sends resolve at once, and are written when `work` has ended, in the order of their calls. On a
 * backend that is not in the site's database they are sent after the commit, and lost when the
 * process dies in between. `send(content, { immediately: true })` is not part of the transaction,
 * nor are changes of group membership, nor what `work` left running.
 *
 * Within another, with the same connection or by the handle of the outer one, it is a savepoint: what
 * it sends is left out when it throws, though the outer one goes on.
 *
 * @param open - runs the transaction, such as `(run) => db.transaction(run)`; or a connection of
 *   `pg`, `mysql2/promise` or SQLite that nobody else uses meanwhile, and that has no transaction open but
 *   by another `inTransaction` around this one.
 * @throws {ChannelkitError} `ERR_CHANNEL_FULL` when a channel has no room for what was sent, which
 *   rolls all of it back; `ERR_ROLLED_BACK`; what `work`, `open` and the commit throw is passed on.
 */
export function inTransaction<Connection extends PlainConnection, T>(
  connection: Connection,
  work: (connection: Connection) => T | Promise<T>,
  options?: TransactionOptions<Connection>,
): Promise<T>
export function inTransaction<Transaction, T>(
  open: OpenTransaction<Transaction, T>,
  work: (transaction: Transaction) => T | Promise<T>,
  options?: TransactionOptions<Transaction>,
): Promise<T>
export async function inTransaction<T>(
  open: PlainConnection | OpenTransaction<unknown, T>,
  work: (transaction: never) => T | Promise<T>,
  options: TransactionOptions<never> = {},
): Promise<T> {
  const parent = siteTransaction()
  // What was sent before goes in front of what is sent within.
  await parent?.write(false)
  await openBackends(options)
  let committing: SiteTransaction | undefined
  const run = async (handle: unknown): Promise<T> => {
    // A library may run it again when the database asks for that.
    const seesCommit = parent?.seesCommit ?? true
    committing = new SiteTransaction({
      handle,
      run: runner(handle, options),
      probe: prober(handle),
      seesCommit,
      parent,
    })
    return runInTransaction(committing, () => work(handle as never))
  }
  const isWithin = parent?.isOf(open) ?? false
  const result = await (typeof open === 'function'
    ? open(run)
    : plainTransaction(open, run, isWithin))
  await committing?.committed()
  return result
}

/**
 * Runs `work` as a part of a transaction that is already open and is committed by others: what it
 * sends is written when `work` has ended, and visible when the transaction commits.
 *
 * Only for SQL backends in the site's own database. Use {@link inTransaction} where you can: the
 * sooner before the commit it is written, the better.
 *
 * @param transaction - what the driver or builder runs the transaction's statements by.
 * @throws {ChannelkitError} `ERR_CHANNEL_FULL`, after which the transaction cannot go on;
 *   `ERR_NOT_SUPPORTED` for sends on other backends.
 */
export async function joinTransaction<Transaction, T>(
  transaction: Transaction,
  work: () => T | Promise<T>,
  options: Pick<TransactionOptions<Transaction>, 'run'> = {},
): Promise<T> {
  const run = runner(transaction, options as TransactionOptions<never>)
  return runInTransaction(
    new SiteTransaction({ handle: transaction, run, seesCommit: false }),
    work,
  )
}

/**
 * Runs `work` when the transaction of the site's that this code is part of has been committed; never
 * when it rolls back, and at once where there is none. It is lost when the process dies between. What it throws then is
 * logged.
 *
 * @throws {ChannelkitError} `ERR_NOT_SUPPORTED` within `joinTransaction`.
 */
export async function afterCommit(work: () => unknown): Promise<void> {
  const transaction = siteTransaction()
  if (transaction) transaction.afterCommit(work)
  else await work()
}

/** Makes tables before the transaction begins, since SQLite has one writer at a time. */
async function openBackends({ sends = 'inTransaction' }: TransactionOptions<never>): Promise<void> {
  if (sends !== 'inTransaction' && sends !== 'afterCommit') {
    throw new ChannelkitError(
      'ERR_INVALID_ARGUMENT',
      `sends is ${shown(sends)}; give 'inTransaction' or 'afterCommit'`,
    )
  }
  const site = currentSite.optional()
  if (sends === 'afterCommit' || !site) return
  const backends: readonly ChannelBackend[] = site.backendNames.map((name) => site.backend(name))
  await Promise.all(backends.map(({ transactional }) => transactional?.open()))
}

function runner(handle: unknown, { sends, run }: TransactionOptions<never>) {
  if (sends === 'afterCommit') return undefined
  if (run) return async (text: string): Promise<unknown> => run(text, handle as never)
  let known: ReturnType<typeof statementRunner> | undefined
  // A handle that is not known matters only where something is written by it.
  return (text: string): Promise<unknown> => {
    known ??= statementRunner(handle)
    return known(text)
  }
}

/** Runs a statement that fails where the transaction can no longer be committed. */
function prober(handle: unknown): () => Promise<unknown> {
  return async () => {
    let run: ReturnType<typeof statementRunner>
    try {
      run = statementRunner(handle)
    } catch {
      // Of no known kind.
      return undefined
    }
    return await run('SELECT 1')
  }
}
