import { siteTransaction } from '../site-transactions/site-transaction.ts'
import type { ModelBinding } from './model-binding.ts'
import { report } from './report.ts'

/** A transaction of Sequelize's. */
interface SequelizeTransaction {
  afterCommit(run: () => unknown): unknown
  /** The one it is a savepoint of. */
  readonly parent?: SequelizeTransaction | null | undefined
}

interface HookOptions {
  readonly transaction?: SequelizeTransaction | null | undefined
}

/** A row as Sequelize hands it to hooks. */
interface SequelizeRow<Row> {
  get(): Row
  previous(): Partial<Row>
}

/** A model class of Sequelize 6. */
export interface SequelizeModel<Row extends object> {
  // biome-ignore lint/suspicious/noExplicitAny: Sequelize types each hook by its name.
  addHook(name: any, hook: any): unknown
  readonly prototype: { get(): Row }
}

/**
 * Tells a binding of every row that is created, changed or deleted through a model of Sequelize 6,
 * after its transaction has committed. Bulk calls are seen only with `individualHooks: true`.
 *
 * Within `inTransaction` its sends are part of the transaction. Otherwise they follow the commit by
 * `transaction.afterCommit`, or the saving itself where there is no transaction: then what fails is
 * logged, and lost when the process dies in between. Sequelize calls those hooks even when the COMMIT
 * itself has failed, which `inTransaction` notices.
 */
export function bindSequelize<Row extends object>(
  model: SequelizeModel<Row>,
  binding: ModelBinding<Row>,
): void {
  const befores = new WeakMap<object, Row>()
  model.addHook('beforeUpdate', (row: SequelizeRow<Row>) => {
    befores.set(row, { ...row.get(), ...row.previous() })
  })
  model.addHook('afterCreate', (row: SequelizeRow<Row>, options: HookOptions) => {
    const now = { ...row.get() }
    return tell(options, () => binding.created(now))
  })
  model.addHook('afterUpdate', (row: SequelizeRow<Row>, options: HookOptions) => {
    const [now, before] = [{ ...row.get() }, befores.get(row)]
    befores.delete(row)
    return tell(options, () => binding.updated(now, before))
  })
  // A paranoid model's rows are deleted, and can come back.
  model.addHook('afterRestore', (row: SequelizeRow<Row>, options: HookOptions) => {
    const now = { ...row.get() }
    return tell(options, () => binding.created(now))
  })
  model.addHook('afterDestroy', (row: SequelizeRow<Row>, options: HookOptions) => {
    const now = { ...row.get() }
    return tell(options, () => binding.deleted(now))
  })
}

async function tell({ transaction }: HookOptions, send: () => Promise<void>): Promise<void> {
  // A savepoint may be rolled back alone; its own commit comes before that of the whole.
  if (transaction?.parent) {
    const { parent } = transaction
    transaction.afterCommit(() => tell({ transaction: parent }, send))
  } else if (siteTransaction()) {
    await send()
  } else if (transaction) {
    transaction.afterCommit(() => report(send))
  } else {
    await report(send)
  }
}
