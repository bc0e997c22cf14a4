import type { BackendChoice } from '../channel.ts'
import type { Content } from '../content.ts'
import { ChannelkitError, shown } from '../errors.ts'
import { Group } from '../group.ts'

/** What has become of a row, as the groups of its model hear it. */
export interface ModelChange<Row extends object = Record<string, unknown>> {
  readonly model: string
  readonly action: 'create' | 'update' | 'delete'
  readonly key: unknown
  /** The listed fields alone; empty when the row is deleted, or has left the group. */
  readonly fields: Partial<Row>
}

/** How the rows of a model reach groups. */
export interface ModelBindingOptions<Row extends object> extends BackendChoice {
  /** What the model is called in what is sent. */
  readonly model: string
  /** The fields that are sent: name each, so that no other ever reaches a client. */
  readonly fields: readonly (keyof Row & string)[]
  /** The field that identifies a row. Default `id`. */
  readonly key?: keyof Row & string
  /** The groups that hear of a row: one name, several or none. */
  readonly groups: (row: Row) => string | readonly string[]
  /**
   * The content that is sent. Default a text frame for sockets, `{ content: JSON.stringify(change) }`.
   */
  readonly content?: (change: ModelChange<Row>) => Content
}

/**
 * Tells groups of the rows of a model, whoever saves them. To be called when a row has been saved, by
 * one of the adapters or your own hook. Within `inTransaction` the groups hear of it when that commits.
 */
export class ModelBinding<Row extends object> {
  readonly #options: ModelBindingOptions<Row>
  readonly #key: keyof Row & string

  constructor(options: ModelBindingOptions<Row>) {
    if (!Array.isArray(options.fields) || options.fields.length === 0) {
      throw new ChannelkitError(
        'ERR_INVALID_ARGUMENT',
        `fields of the binding of ${shown(options.model)} is ${shown(options.fields)}; list the fields that may be sent`,
      )
    }
    this.#options = options
    this.#key = options.key ?? ('id' as keyof Row & string)
  }

  /**
   * Tells the groups of a new row.
   *
   * @throws {ChannelkitError} like `Group.send`.
   */
  async created(row: Row): Promise<void> {
    await this.#tell('create', row, this.#groupsOf(row))
  }

  /**
   * Tells the groups of a changed row: those it was in before that it was deleted, new ones that it
   * was created.
   *
   * @param before - the row as it was; without it the groups of before do not hear that it has left.
   * @throws {ChannelkitError} like `Group.send`.
   */
  async updated(row: Row, before: Row = row): Promise<void> {
    const [now, then] = [this.#groupsOf(row), this.#groupsOf(before)]
    await this.#tell(
      'delete',
      before,
      then.filter((group) => !now.includes(group)),
    )
    await this.#tell(
      'update',
      row,
      now.filter((group) => then.includes(group)),
    )
    await this.#tell(
      'create',
      row,
      now.filter((group) => !then.includes(group)),
    )
  }

  /**
   * Tells the groups of a row that it is gone.
   *
   * @throws {ChannelkitError} like `Group.send`.
   */
  async deleted(row: Row): Promise<void> {
    await this.#tell('delete', row, this.#groupsOf(row))
  }

  #groupsOf(row: Row): readonly string[] {
    const groups = this.#options.groups(row)
    return [...new Set(typeof groups === 'string' ? [groups] : groups)]
  }

  async #tell(action: ModelChange['action'], row: Row, groups: readonly string[]): Promise<void> {
    if (groups.length === 0) return
    const { model, fields, backend, content = asText } = this.#options
    const sent: Partial<Row> = {}
    if (action !== 'delete') for (const field of fields) sent[field] = row[field]
    const message = content({ model, action, key: row[this.#key], fields: sent })
    const choice = backend === undefined ? {} : { backend }
    await Promise.all(groups.map((group) => Group(group, choice).send(message)))
  }
}

function asText(change: object): Content {
  return { content: JSON.stringify(change) }
}

/** Binds the rows of a model to groups: the start for the adapters of ORMs, or for hooks of your own. */
export function modelBinding<Row extends object>(
  options: ModelBindingOptions<Row>,
): ModelBinding<Row> {
  return new ModelBinding(options)
}
