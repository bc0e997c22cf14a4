import { siteTransaction } from '../site-transactions/site-transaction.ts'
import type { ModelBinding } from './model-binding.ts'
import { report } from './report.ts'

/** A QueryRunner of TypeORM's. */
interface TypeormRunner {
  readonly isTransactionActive: boolean
}

interface TypeormEvent<Row> {
  readonly queryRunner: TypeormRunner
  readonly entity?: Row | undefined
  /** The row as it was. */
  readonly databaseEntity?: Row | undefined
}

/** A runner's transaction and the savepoints in it. */
interface OpenTransactions {
  /** What follows the commit. */
  readonly sends: (() => Promise<void>)[]
  /** How many sends there were when each of them began. */
  readonly marks: number[]
}

/** What is used of a DataSource of TypeORM. */
export interface TypeormSource {
  readonly subscribers: readonly object[]
}

/** An entity of TypeORM's: a class, or an EntitySchema. */
export type TypeormEntity<Row> =
  | (new () => Row)
  | { readonly options: { readonly name: string; readonly target?: unknown } }

/**
 * Tells a binding of every row of an entity that is created, changed or deleted through TypeORM,
 * after its transaction has committed. To be called once the DataSource is initialized. TypeORM
 * tells of rows only where it has them: by `save`, `remove`, `softRemove`, `recover` and `insert`, not by `update`
 * and `delete`.
 *
 * Within `inTransaction` its sends are part of the transaction. Otherwise they follow the commit: then
 * what fails is logged, and lost when the process dies in between.
 */
export function bindTypeorm<Row extends object>(
  source: TypeormSource,
  entity: TypeormEntity<Row>,
  binding: ModelBinding<Row>,
): void {
  const target =
    typeof entity === 'function' ? entity : (entity.options.target ?? entity.options.name)
  const open = new WeakMap<TypeormRunner, OpenTransactions>()
  const opened = (runner: TypeormRunner): OpenTransactions => {
    let found = open.get(runner)
    if (!found) {
      found = { sends: [], marks: [] }
      open.set(runner, found)
    }
    return found
  }
  const tell = async ({ queryRunner }: TypeormEvent<Row>, send: () => Promise<void>) => {
    const { sends, marks } = opened(queryRunner)
    // Within a savepoint it waits whether that is rolled back alone.
    if (siteTransaction() && marks.length <= 1) await send()
    else if (queryRunner.isTransactionActive) sends.push(send)
    else await report(send)
  }
  const removed = (event: TypeormEvent<Row>) => {
    const row = event.databaseEntity ?? event.entity
    if (!row) return undefined
    const then = { ...event.entity, ...row }
    return tell(event, () => binding.deleted(then as Row))
  }
  const subscriber = {
    listenTo: () => target,
    afterInsert(event: TypeormEvent<Row>) {
      const row = event.entity && { ...event.entity }
      return row && tell(event, () => binding.created(row))
    },
    afterUpdate(event: TypeormEvent<Row>) {
      const { databaseEntity: before } = event
      if (!before) return undefined
      const [then, now] = [{ ...before }, { ...before, ...event.entity }]
      return tell(event, () => binding.updated(now, then))
    },
    afterRemove: removed,
    afterSoftRemove: removed,
    afterRecover(event: TypeormEvent<Row>) {
      const row = event.databaseEntity ?? event.entity
      if (!row) return undefined
      const now = { ...row, ...event.entity }
      return tell(event, () => binding.created(now as Row))
    },
    afterTransactionStart({ queryRunner }: TypeormEvent<Row>) {
      const { sends, marks } = opened(queryRunner)
      marks.push(sends.length)
    },
    async afterTransactionCommit({ queryRunner }: TypeormEvent<Row>) {
      const { sends, marks } = opened(queryRunner)
      marks.pop()
      const isPartOfSite = siteTransaction() !== undefined && marks.length === 1
      if (queryRunner.isTransactionActive && !isPartOfSite) return
      for (const send of sends.splice(0)) await (isPartOfSite ? send() : report(send))
    },
    afterTransactionRollback({ queryRunner }: TypeormEvent<Row>) {
      const { sends, marks } = opened(queryRunner)
      sends.length = marks.pop() ?? 0
    },
  }
  const subscribers = source.subscribers as object[]
  subscribers.push(subscriber)
}
