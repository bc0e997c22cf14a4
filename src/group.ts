import { type BackendChoice, type Channel, chosenBackend, type SendOptions } from './channel.ts'
import type { Content } from './content.ts'
import { refuseDelay } from './delays.ts'
import { holdSend, isHolding } from './held-sends.ts'
import { checkChannelName, checkGroupName } from './names.ts'
import { siteTransaction } from './site-transactions/site-transaction.ts'
import { noteGroupSend } from './unread-messages.ts'

/** A set of channels; each membership ends after the group expiry unless it is renewed. */
export interface Group {
  readonly name: string
  /**
   * Puts a channel into the group, or renews its membership. Awaited before a `send`, it is seen
   * by it.
   *
   * @throws {ChannelkitError} `ERR_INVALID_NAME`, `ERR_BACKEND_UNAVAILABLE`
   */
  add(channel: Channel | string): Promise<void>
  /** Takes a channel out; one that is not in it is fine. */
  discard(channel: Channel | string): Promise<void>
  /**
   * Gives every member one copy. A full or slow member is passed over and counted. There is none for
   * later: send that to a channel whose consumer sends to the group.
   *
   * @throws {ChannelkitError} `ERR_INVALID_CONTENT`, `ERR_CONTENT_TOO_LARGE`,
   *   `ERR_BACKEND_UNAVAILABLE`
   */
  send(content: Content, options?: SendOptions): Promise<void>
  /** The names of the channels in the group now, in no order. */
  channels(): Promise<readonly string[]>
}

class NamedGroup implements Group {
  readonly name: string
  readonly #choice: BackendChoice['backend']

  constructor(name: string, choice: BackendChoice['backend']) {
    this.name = name
    this.#choice = choice
  }

  async add(channel: Channel | string): Promise<void> {
    await chosenBackend(this.#choice).groupAdd([{ group: this.name, channel: nameOf(channel) }])
  }

  async discard(channel: Channel | string): Promise<void> {
    await chosenBackend(this.#choice).groupDiscard([{ group: this.name, channel: nameOf(channel) }])
  }

  async send(content: Content, options?: SendOptions): Promise<void> {
    refuseDelay(options)
    const transaction = options?.immediately ? undefined : siteTransaction()
    if (transaction) {
      const backend = chosenBackend(this.#choice)
      return transaction.send(
        backend,
        () => ({ group: this.name }),
        content,
        (copy) => copy,
      )
    }
    if (isHolding(options)) return holdSend(content, (held) => this.#send(held))
    return this.#send(content)
  }

  async #send(content: Content): Promise<void> {
    const backend = chosenBackend(this.#choice)
    noteGroupSend(backend)
    const failures = await backend.groupSend([{ group: this.name, content }])
    if (failures[0]) throw failures[0].error
  }

  async channels(): Promise<readonly string[]> {
    return chosenBackend(this.#choice).groupChannels(this.name)
  }

  toString(): string {
    return this.name
  }
}

/**
 * The group of that name: `await Group('chat').add(message.replyChannel)`.
 *
 * @param name - any 1–200 characters; a room name that users chose may go in as it is.
 * @throws {ChannelkitError} `ERR_INVALID_NAME`
 */
export function Group(name: string, choice: BackendChoice = {}): Group {
  checkGroupName(name)
  return new NamedGroup(name, choice.backend)
}

function nameOf(channel: Channel | string): string {
  const name = typeof channel === 'string' ? channel : channel?.name
  checkChannelName(name)
  return name
}
