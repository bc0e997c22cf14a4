import type { ChannelBackend } from './backends/channel-backend.ts'
import { type ContentOf, validateContent } from './channel-types.ts'
import { type Content, copyContent, measureContent } from './content.ts'
import { currentSite } from './current-site.ts'
import { type Delay, delayFromNow, isForLater, type Later, type SomeDelay } from './delays.ts'
import { holdSend, isHolding } from './held-sends.ts'
import { checkChannelName } from './names.ts'
import { type SiteTransaction, siteTransaction } from './site-transactions/site-transaction.ts'

/** Where a `Channel` or `Group` sends: a backend, or the name of one in the site's config. */
export interface BackendChoice {
  /** Default `'default'`, of the site that `setup` or the command line loaded. */
  readonly backend?: ChannelBackend | string
}

/** A named first-in-first-out queue; each message on it goes to at most one receiver. */
export interface Channel<C extends Content = Content> {
  readonly name: string
  /**
   * Puts one message at the channel's end. It is stored when the promise resolves.
   *
   * @throws {ChannelkitError} `ERR_CHANNEL_FULL` at once when the channel holds its capacity;
   *   `ERR_INVALID_CONTENT`, `ERR_CONTENT_TOO_LARGE`, `ERR_BACKEND_UNAVAILABLE`,
   *   `ERR_NOT_CONFIGURED`
   */
  send(content: C, options?: SendOptions): Promise<void>
  /**
   * Stores one message now, and puts it at the channel's end at its time: not before, and within a
   * second of it while a worker or the sender runs. Its expiry counts from then. Its delay counts from
   * the call; within `inTransaction` it is part of the transaction like any other.
   *
   * @returns the message's id, for `cancel`.
   * @throws {ChannelkitError} `ERR_INVALID_ARGUMENT` for a time that is none or more than 366 days
   *   off; `ERR_CHANNEL_FULL` when the channel holds `delayedCapacity` such messages; else as above.
   */
  send(content: C, options: DelayedSendOptions): Promise<string>
  /**
   * Takes back a message whose time has not come.
   *
   * @returns whether it waited, and will not be delivered.
   * @throws {ChannelkitError} `ERR_INVALID_ARGUMENT`, `ERR_BACKEND_UNAVAILABLE`
   */
  cancel(id: string): Promise<boolean>
}

export interface SendOptions {
  /** Sends now, even within `inTransaction` or a consumer wrapped in `holdSends`. Default false. */
  readonly immediately?: boolean
}

/** How a message for later is sent; at least one of `delayMs`, `at` and `id` makes it one. */
export type DelayedSendOptions = SendOptions & SomeDelay

/** What refuses sends when a linearized consumer has lost its turn. */
interface Fence {
  check(what: string): void
}

/** Backends that were opened from here: before, a backend of a server does not know the server's time. */
const opened = new WeakSet<ChannelBackend>()

async function openOnce(backend: ChannelBackend): Promise<void> {
  if (opened.has(backend)) return
  await backend.open()
  opened.add(backend)
}

class NamedChannel implements Channel {
  readonly name: string
  readonly #choice: BackendChoice['backend']
  readonly #fence: Fence | undefined

  constructor(name: string, choice: BackendChoice['backend'], fence?: Fence) {
    this.name = name
    this.#choice = choice
    this.#fence = fence
  }

  send(content: Content, options?: SendOptions): Promise<void>
  send(content: Content, options: DelayedSendOptions): Promise<string>
  send(content: Content, options?: SendOptions & Delay): Promise<unknown> {
    if (isForLater(options)) return this.#sendLater(content, options)
    const transaction = options?.immediately ? undefined : siteTransaction()
    if (transaction) return this.#sendIn(transaction, content)
    if (isHolding(options)) {
      return holdSend(
        content,
        (checked) => this.#store(checked),
        (held) => this.#checked(held),
      )
    }
    return this.#send(content)
  }

  async cancel(id: string): Promise<boolean> {
    const [wasWaiting = false] = await this.backend.cancel(this.name, [id])
    return wasWaiting
  }

  async #sendLater(content: Content, options: DelayedSendOptions): Promise<string> {
    const { backend } = this
    const { id, later } = delayFromNow(this.name, options, backend.limits.clock)
    const transaction = options.immediately ? undefined : siteTransaction()
    if (transaction) {
      const to = () => ({ channel: this.name, ...later() })
      await transaction.send(backend, to, content, async (copy) => {
        await openOnce(backend)
        return this.#checked(copy)
      })
    } else if (isHolding(options)) {
      const store = async (checked: Content) => {
        await openOnce(backend)
        await this.#store(checked, later())
      }
      await holdSend(content, store, (held) => this.#checked(held))
    } else if (opened.has(backend)) {
      await this.#send(content, later())
    } else {
      measureContent(content)
      const copy = copyContent(content)
      await openOnce(backend)
      await this.#send(copy, later())
    }
    return id
  }

  #send(content: Content, later?: Later): Promise<void> {
    if (!this.#hasSchema) return this.#store(content, later)
    return this.#checked(content).then((checked) => this.#store(checked, later))
  }

  async #sendIn(transaction: SiteTransaction, content: Content): Promise<void> {
    const check = this.#hasSchema ? (copy: Content) => this.#checked(copy) : unchecked
    await transaction.send(this.backend, () => ({ channel: this.name }), content, check)
  }

  get #hasSchema(): boolean {
    return currentSite.optional()?.declaration(this.name)?.schema !== undefined
  }

  async #checked(content: Content): Promise<Content> {
    const declaration = currentSite.optional()?.declaration(this.name)
    return declaration?.schema ? validateContent(this.name, declaration, content) : content
  }

  async #store(content: Content, later?: Later): Promise<void> {
    const { backend } = this
    const failures = await backend.send([{ channel: this.name, content, ...later }])
    if (failures.length > 0) throw failures[0]?.error
  }

  /**
   * Where it sends.
   *
   * @throws {ChannelkitError} `ERR_LOCK_LOST`
   */
  get backend(): ChannelBackend {
    this.#fence?.check('nothing is sent to the client')
    return chosenBackend(this.#choice)
  }

  toString(): string {
    return this.name
  }

  toJSON(): string {
    return this.name
  }
}

function unchecked(content: Content): Content {
  return content
}

/**
 * The channel of that name: `await Channel('chat-messages').send({ … })`.
 *
 * @param name - 1–200 of `A-Z a-z 0-9 . _ -`, or a reply channel's name.
 * @throws {ChannelkitError} `ERR_INVALID_NAME`
 */
export function Channel<const Name extends string>(
  name: Name,
  choice: BackendChoice = {},
): Channel<ContentOf<Name>> {
  checkChannelName(name)
  return new NamedChannel(name, choice.backend) as Channel<ContentOf<Name>>
}

/** The reply channel of a message, whose name the backend made and needs no check. */
export function replyChannelOf(name: string, backend: ChannelBackend, fence?: Fence): Channel {
  return new NamedChannel(name, backend, fence)
}

/** The backend of a channel made here, unless its sends are held back or part of a transaction. */
export function backendOf(channel: object): ChannelBackend | undefined {
  const isOrdinary = !isHolding(undefined) && !siteTransaction()
  return channel instanceof NamedChannel && isOrdinary ? channel.backend : undefined
}

/** The backend a choice means. */
export function chosenBackend(choice: BackendChoice['backend']): ChannelBackend {
  if (typeof choice === 'object') return choice
  return currentSite().backend(choice)
}
