import { AsyncLocalStorage } from 'node:async_hooks'
import type {
  ChannelBackend,
  RunStatement,
  SiteSend,
  SiteSendTarget,
  TransactionalSends,
} from '../backends/channel-backend.ts'
import { type Content, copyContent, measureContent } from '../content.ts'
import { currentSite } from '../current-site.ts'
import { ChannelkitError } from '../errors.ts'

/** A send in the place its call had among the others. */
interface Collected {
  readonly backend: ChannelBackend
  /** Undefined while its content is being checked. */
  send: SiteSend | undefined
  /** What a transactional backend made of it. */
  prepared: unknown
  readonly checked: Promise<unknown>
}

/** How sends become part of the transaction. */
export interface SiteTransactionOptions {
  /** What the driver or builder runs its statements by. */
  readonly handle: unknown
  /** Runs a statement in it; undefined when all sends wait for the commit. */
  readonly run: RunStatement | undefined
  /** Runs a statement that fails where it can no longer be committed. */
  readonly probe?: () => Promise<unknown>
  /** Whether {@link SiteTransaction.committed} will be called. */
  readonly seesCommit: boolean
  readonly parent?: SiteTransaction | undefined
}

/** What one transaction of the site's has sent. */
export class SiteTransaction {
  readonly #options: SiteTransactionOptions
  #collected: Collected[] = []
  readonly #written = new Set<TransactionalSends>()
  readonly #afterCommit: (() => unknown)[] = []
  /** False once its work has ended: what was left running is not part of it. */
  isOpen = true

  constructor(options: SiteTransactionOptions) {
    this.#options = options
  }

  /** Whether it is known here when it has been committed. */
  get seesCommit(): boolean {
    return this.#options.seesCommit
  }

  /** Whether it, or one around it, is run by this handle. */
  isOf(handle: unknown): boolean {
    const { handle: own, parent } = this.#options
    return own === handle || (parent?.isOf(handle) ?? false)
  }

  /**
   * Takes a send in, to be written when the work has ended.
   *
   * @param to - where to, and when; asked when the content has been checked.
   * @throws {ChannelkitError} at once for content that cannot travel.
   */
  async send(
    backend: ChannelBackend,
    to: () => SiteSendTarget,
    content: Content,
    check: (content: Content) => Content | Promise<Content>,
  ): Promise<void> {
    const isTransactional = this.#options.run !== undefined && backend.transactional !== undefined
    if (!isTransactional) this.checkSeesCommit('sends on this backend')
    measureContent(content)
    const prepare = (checked: Content): void => {
      collected.send = { ...to(), content: checked }
      if (isTransactional) collected.prepared = backend.transactional?.prepare(collected.send)
    }
    const checked = check(copyContent(content))
    const collected: Collected = {
      backend,
      send: undefined,
      prepared: undefined,
      checked: checked instanceof Promise ? checked.then(prepare) : Promise.resolve(),
    }
    if (!(checked instanceof Promise)) prepare(checked)
    this.#collected.push(collected)
    try {
      await collected.checked
    } catch (error) {
      this.#collected = this.#collected.filter((each) => each !== collected)
      throw error
    }
  }

  /** @throws {ChannelkitError} `ERR_NOT_SUPPORTED` */
  checkSeesCommit(what: string): void {
    if (this.#options.seesCommit) return
    throw new ChannelkitError(
      'ERR_NOT_SUPPORTED',
      `${what} must wait for the commit, which joinTransaction does not see; use inTransaction around the whole transaction`,
    )
  }

  afterCommit(work: () => unknown): void {
    this.checkSeesCommit('afterCommit')
    this.#afterCommit.push(work)
  }

  /**
   * Writes what was sent so far, and leaves what can only be sent later to the end.
   *
   * @param isLast - whether its commit follows, or the end of its savepoint.
   * @throws {ChannelkitError} `ERR_CHANNEL_FULL`
   */
  async write(isLast: boolean): Promise<void> {
    await Promise.allSettled(this.#collected.map(({ checked }) => checked))
    const collected = this.#collected
    this.#collected = []
    const { run, seesCommit, parent } = this.#options
    const commitFollows = isLast && seesCommit && !parent
    let isAlive = false
    for (const [backend, some] of byBackend(collected)) {
      const { transactional } = backend
      if (run && transactional) {
        const prepared = some.map((each) => each.prepared)
        await transactional.write(prepared, run, commitFollows)
        this.#written.add(transactional)
        isAlive = true
      } else {
        const sends = some.flatMap(({ send }) => send ?? [])
        this.#afterCommit.push(() => sendAll(backend, sends))
      }
    }
    if (isLast && !isAlive && this.#afterCommit.length > 0) await this.#checkAlive()
  }

  /** @throws what the database says where a statement has failed and the commit will be a rollback. */
  async #checkAlive(): Promise<void> {
    try {
      await this.#options.probe?.()
    } catch (error) {
      if (isAborted(error)) throw error
    }
  }

  /** To be called when it has been committed: runs what waits for that, in order. */
  async committed(): Promise<void> {
    const { parent } = this.#options
    if (parent) {
      for (const transactional of this.#written) parent.#written.add(transactional)
      parent.#afterCommit.push(...this.#afterCommit)
      return
    }
    for (const transactional of this.#written) transactional.committed()
    for (const work of this.#afterCommit) {
      try {
        await work()
      } catch (error) {
        const message = 'what was to run after a commit has failed; the transaction is committed'
        currentSite.optional()?.logger.error({ err: error }, message)
      }
    }
  }
}

const current = new AsyncLocalStorage<SiteTransaction>()

/** The transaction of the site's that this code is part of. */
export function siteTransaction(): SiteTransaction | undefined {
  const transaction = current.getStore()
  return transaction?.isOpen ? transaction : undefined
}

/** Runs `work` as part of `transaction`, and then writes what it has sent. */
export async function runInTransaction<T>(
  transaction: SiteTransaction,
  work: () => T | Promise<T>,
): Promise<T> {
  let result: T
  try {
    result = await current.run(transaction, async () => work())
  } finally {
    transaction.isOpen = false
  }
  await transaction.write(true)
  return result
}

/** One after the other, in batches of what stands together. */
async function sendAll(backend: ChannelBackend, sends: readonly SiteSend[]): Promise<void> {
  let failure: { readonly error: unknown } | undefined
  for (let done = 0; done < sends.length; ) {
    const isGroup = 'group' in (sends[done] as SiteSend)
    let end = done
    while (end < sends.length && 'group' in (sends[end] as SiteSend) === isGroup) end++
    const batch = sends.slice(done, end)
    done = end
    let lost = 0
    try {
      const failures = isGroup
        ? await backend.groupSend(batch as Parameters<ChannelBackend['groupSend']>[0])
        : await backend.send(batch as Parameters<ChannelBackend['send']>[0])
      lost = failures.length
      const [first] = failures
      if (first) failure ??= first
    } catch (error) {
      lost = batch.length
      failure ??= { error }
    }
    if (lost > 0) backend.counters.add('dropped.after-commit', lost)
  }
  if (failure) throw failure.error
}

function byBackend(
  collected: readonly Collected[],
): ReadonlyMap<ChannelBackend, readonly Collected[]> {
  const found = new Map<ChannelBackend, Collected[]>()
  for (const each of collected) {
    const some = found.get(each.backend) ?? []
    some.push(each)
    found.set(each.backend, some)
  }
  return found
}

/** Whether PostgreSQL says that a statement before has failed, whatever a builder made of the error. */
function isAborted(error: unknown): boolean {
  for (let each = error; each instanceof Error; ) {
    const { code, cause, driverError, original } = each as Error & {
      readonly [key: string]: unknown
    }
    if (code === '25P02') return true
    each = cause ?? driverError ?? original
  }
  return false
}
