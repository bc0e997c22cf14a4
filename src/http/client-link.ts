import type { ChannelBackend, Inbox, OutgoingMessage } from '../backends/channel-backend.ts'
import type { Content } from '../content.ts'
import { isChannelkitError } from '../errors.ts'
import { Backoff } from '../internal/backoff.ts'
import { repeat } from '../internal/clock.ts'
import type { HttpNotice } from '../message-formats.ts'
import { fullWindow, partCost } from './part-window.ts'

// A request that is answered sooner needs nobody to listen for its client.
const watchAfterMs = 1_000
const sweepMs = 1_000
const heartbeatMs = 10_000
/** An interface server or a worker that is silent for so long is gone. */
export const silentMs = 30_000
// Parts of a request's body that may be under way to its reader.
const bodyWindow = 4

/** One part of a request's body. */
export interface BodyPart {
  readonly bytes: Uint8Array | undefined
  readonly isLast: boolean
}

/**
 * The worker's end of one request under way: through it come the parts of a long body, the
 * acknowledgements of a streamed answer's parts, and the news that the client has left.
 *
 * It costs nothing until it listens: when the body is read on, when the answer streams, or when
 * the view has run for a second. From then on both ends hear from each other every ten seconds, so
 * that neither waits for one that has died.
 */
export class ClientLink {
  readonly replyChannel: string
  readonly startedAt: number
  /** Called when the client has left; cheaper than its signal. */
  onClose: (() => void) | undefined
  readonly #links: ClientLinks
  #controller: AbortController | undefined
  #isClosed = false
  #channel: string | undefined
  #heardAt = 0
  #askedAt = 0
  #grantedParts = 0
  #takenParts = 0
  #arrivedParts = 0
  /** Made with the first part, as below: most requests have none. */
  #bodyParts: BodyPart[] | undefined
  /** What the parts that are not yet acknowledged cost, oldest first. */
  #unacknowledged: number[] | undefined
  #unacknowledgedCost = 0
  #acknowledgedParts = 0
  #onChange: (() => void) | undefined

  constructor(links: ClientLinks, replyChannel: string) {
    this.#links = links
    this.replyChannel = replyChannel
    this.startedAt = links.backend.limits.clock.now()
  }

  /** Aborts when the client has left, or can no longer be heard of. */
  get signal(): AbortSignal {
    if (!this.#controller) {
      this.#controller = new AbortController()
      if (this.#isClosed) this.#controller.abort(clientLeft())
    }
    return this.#controller.signal
  }

  get isClosed(): boolean {
    return this.#isClosed
  }

  /**
   * Takes the next part of the body, behind the one that came with the request.
   *
   * @throws the abort reason when the client has left.
   */
  async nextBodyPart(): Promise<BodyPart> {
    if (this.#grantedParts - this.#takenParts <= bodyWindow / 2) {
      this.#grantedParts = this.#takenParts + bodyWindow
      await this.#listen()
    }
    for (;;) {
      const part = this.#bodyParts?.shift()
      if (part) {
        this.#takenParts++
        return part
      }
      await this.#change()
    }
  }

  /**
   * Sends a part of the answer, as soon as the client has taken enough of those before it.
   *
   * @throws the abort reason when the client has left.
   */
  async sendPart(content: Content): Promise<void> {
    while (this.#unacknowledgedCost >= fullWindow) await this.#change()
    if (this.#isClosed) throw clientLeft()
    const cost = partCost(content.content)
    this.#unacknowledged ??= []
    this.#unacknowledged.push(cost)
    this.#unacknowledgedCost += cost
    if (this.#channel === undefined) {
      await this.#links.ready()
      await this.#links.send([this.#control(), this.#part(content)])
    } else {
      await this.#links.send([this.#part(content)])
    }
  }

  /** Sends what needs no acknowledgement: a whole answer, the end of one. */
  async send(content: Content): Promise<void> {
    await this.#links.send([this.#part(content)])
  }

  /** Lets go of it. */
  end(): void {
    this.#links.forget(this, this.#channel)
    this.#channel = undefined
  }

  /** Takes what the interface server tells; called by the inbox. */
  hear(notice: HttpNotice): void {
    this.#heardAt = this.#links.backend.limits.clock.now()
    if (notice.closed) {
      this.#close()
    } else if (notice.received !== undefined) {
      while (this.#acknowledgedParts < notice.received && this.#unacknowledged?.length) {
        this.#acknowledgedParts++
        this.#unacknowledgedCost -= this.#unacknowledged.shift() as number
      }
    }
    if (notice.part !== undefined) {
      // A part that was lost on its way must not leave a hole in the body.
      if (notice.part !== this.#arrivedParts) this.#close()
      else {
        this.#bodyParts ??= []
        this.#bodyParts.push({ bytes: notice.body, isLast: notice.more_content !== true })
      }
      this.#arrivedParts++
    }
    this.#onChange?.()
  }

  /** Called once a second while the request is under way. */
  tick(now: number): void {
    if (this.#isClosed) return
    if (this.#channel === undefined) {
      if (now - this.startedAt >= watchAfterMs) void this.#listen().catch(() => {})
    } else if (now - this.#heardAt >= silentMs) {
      this.#close()
      this.#onChange?.()
    } else if (now - this.#askedAt >= heartbeatMs) {
      void this.#listen().catch(() => {})
    }
  }

  async #listen(): Promise<void> {
    if (this.#isClosed) throw clientLeft()
    this.#channel ??= await this.#links.newChannel(this)
    await this.#links.send([this.#control()])
  }

  #control(): OutgoingMessage {
    const now = this.#links.backend.limits.clock.now()
    this.#channel ??= this.#links.channelNow(this)
    this.#askedAt = now
    if (this.#heardAt === 0) this.#heardAt = now
    return {
      channel: this.replyChannel,
      content: { listen: this.#channel, body_parts: this.#grantedParts },
      handsOver: true,
    }
  }

  #part(content: Content): OutgoingMessage {
    return { channel: this.replyChannel, content, handsOver: true }
  }

  async #change(): Promise<void> {
    if (this.#isClosed) throw clientLeft()
    await new Promise<void>((resolve) => {
      const before = this.#onChange
      this.#onChange = () => {
        this.#onChange = undefined
        before?.()
        resolve()
      }
    })
    if (this.#isClosed) throw clientLeft()
  }

  #close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.end()
    this.#controller?.abort(clientLeft())
    this.onClose?.()
  }
}

/** What the waits of a view whose client has gone are ended with. */
export function clientLeft(): DOMException {
  return new DOMException('the client has left', 'AbortError')
}

const allLinks = new WeakMap<ChannelBackend, ClientLinks>()

/** The links of one process to the clients of one backend, which share an inbox and its loop. */
export class ClientLinks {
  readonly backend: ChannelBackend
  readonly #active = new Set<ClientLink>()
  #inbox: Promise<Inbox<ClientLink>> | undefined
  #openInbox: Inbox<ClientLink> | undefined
  #stopSweeping: (() => void) | undefined

  constructor(backend: ChannelBackend) {
    this.backend = backend
  }

  static of(backend: ChannelBackend): ClientLinks {
    let links = allLinks.get(backend)
    if (!links) {
      links = new ClientLinks(backend)
      allLinks.set(backend, links)
    }
    return links
  }

  /** Begins a link; its owner is to `end` it. */
  open(replyChannel: string): ClientLink {
    const link = new ClientLink(this, replyChannel)
    this.#active.add(link)
    this.#stopSweeping ??= repeat(this.backend.limits.clock, () => this.#sweep(), sweepMs)
    return link
  }

  forget(link: ClientLink, channel: string | undefined): void {
    this.#active.delete(link)
    if (channel !== undefined) this.#openInbox?.endChannel(channel)
  }

  /** Opens what {@link channelNow} needs. */
  async ready(): Promise<void> {
    this.#inbox ??= this.#open().catch((error: unknown) => {
      this.#inbox = undefined
      throw error
    })
    await this.#inbox
  }

  async newChannel(link: ClientLink): Promise<string> {
    await this.ready()
    return this.channelNow(link)
  }

  channelNow(link: ClientLink): string {
    if (!this.#openInbox) throw new Error('a client link is used before its inbox is open')
    return this.#openInbox.newChannel(link)
  }

  async send(messages: readonly OutgoingMessage[]): Promise<void> {
    const failures = await this.backend.send(messages)
    if (failures[0]) throw failures[0].error
  }

  async #open(): Promise<Inbox<ClientLink>> {
    const inbox = await this.backend.openInbox<ClientLink>()
    this.#openInbox = inbox
    void this.#listen(inbox)
    return inbox
  }

  /** Ends with the backend, which closes the inbox. */
  async #listen(inbox: Inbox<ClientLink>): Promise<void> {
    const backoff = new Backoff(this.backend.limits.clock, { firstMs: 50, longestMs: 2_000 })
    for (;;) {
      try {
        const deliveries = await inbox.receive({ max: 1_000, waitMs: Number.POSITIVE_INFINITY })
        backoff.succeeded()
        for (const { group, ...delivery } of deliveries) {
          if (group !== undefined || !('owner' in delivery)) continue
          delivery.owner.hear(delivery.content as HttpNotice)
        }
      } catch (error) {
        if (isChannelkitError(error, 'ERR_BACKEND_CLOSED')) break
        await backoff.wait()
      }
    }
    for (const link of this.#active) link.hear({ closed: true })
    this.#stopSweeping?.()
  }

  #sweep(): void {
    if (this.#active.size === 0) {
      this.#stopSweeping?.()
      this.#stopSweeping = undefined
      return
    }
    const now = this.backend.limits.clock.now()
    for (const link of this.#active) link.tick(now)
  }
}

/** The body of a request as a stream: its first part, then the others as they are read. */
export function bodyStream(
  first: Uint8Array | undefined,
  link: ClientLink,
  onEnd: () => void = () => {},
): ReadableStream<Uint8Array> {
  let head = first
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        if (head) {
          controller.enqueue(head)
          head = undefined
          return
        }
        const { bytes, isLast } = await link.nextBodyPart()
        if (bytes) controller.enqueue(bytes)
        if (!isLast) return
        onEnd()
        controller.close()
      },
      cancel: onEnd,
    },
    { highWaterMark: 0 },
  )
}
