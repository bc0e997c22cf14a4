import { ChannelkitError, isChannelkitError } from '../../errors.ts'
import type { ServerClock } from '../server-clock.ts'
import { keySlot } from './key-slot.ts'
import type { RedisAddress } from './redis-client.ts'
import { type RedisLink, type Subscriber, withDoubt } from './redis-link.ts'
import type { RedisNode } from './redis-url.ts'
import { isLostReply, isOutage, replyFault } from './server-check.ts'
import { ServerLink, scan } from './server-link.ts'
import { type Script, scripts } from './wire.ts'

export interface ClusterLinkOptions {
  /** Some servers of the cluster, by which the others are found. */
  readonly seeds: readonly RedisNode[]
  readonly addressOf: (node: RedisNode) => RedisAddress
  readonly shownAs: string
  readonly timeoutMs: number
  readonly base: string
  readonly clock: ServerClock
}

/** Slots, both ends included, and who serves them. */
interface SlotRange {
  readonly first: number
  readonly last: number
  readonly node: string
}

// Between two tries of a call that nobody serves now, and between two looks at who serves what.
const retryMs = 50
// Base → slot, started anew beyond this many.
const maxRemembered = 10_000

/**
 * The link to a Redis Cluster: a link to each master. Calls go to whoever serves their slot, and on
 * to the next when a slot has moved or its master was replaced.
 *
 * While a slot moves, calls wait. To be sent on by ASK would divide the slot's data: a script's base is
 * no key, so that the source sends on every call, also for keys that still lie there.
 */
export class ClusterLink implements RedisLink {
  readonly publish = 'PUBLISH'
  // While a slot moves, other servers than that of the slot may tell of it too.
  readonly handsOver = false
  readonly timeoutMs: number
  readonly #options: ClusterLinkOptions
  readonly #nodes = new Map<string, ServerLink>()
  readonly #subscriptions = new Map<string, { readonly subscriber: Subscriber; node: string }>()
  readonly #upListeners = new Set<() => void>()
  readonly #downListeners = new Set<(error: ChannelkitError) => void>()
  readonly #slots = new Map<string, number>()
  #ranges: readonly SlotRange[] = []
  #refreshing: Promise<void> | undefined
  #checking: Promise<void> | undefined
  #isClosed = false

  constructor(options: ClusterLinkOptions) {
    this.#options = options
    this.timeoutMs = options.timeoutMs
  }

  async open(): Promise<void> {
    await this.#checked()
  }

  async call<Reply>(
    script: Script,
    base: string,
    args: readonly (string | Buffer)[],
  ): Promise<Reply> {
    const known = ['EVALSHA', script.sha, '1', base, ...args]
    return (await this.#loop(base, (node) => node.attempt(known, script))) as Reply
  }

  async *keys(start: string): AsyncGenerator<readonly string[]> {
    await this.open()
    for (const name of new Set(this.#ranges.map(({ node }) => node))) {
      const node = this.#node(name)
      yield* scan(start, async (args) => {
        try {
          return await node.attempt(args)
        } catch (error) {
          throw this.#fault(error)
        }
      })
    }
  }

  async unlink(keys: readonly string[]): Promise<void> {
    const [first] = keys
    if (first === undefined) return
    await this.#loop(first, (node) => node.attempt(['UNLINK', ...keys]))
  }

  async subscribe(channel: string, subscriber: Subscriber): Promise<void> {
    // With the master of its slot, whose scripts are told how many have heard them.
    await this.#loop(channel, async (node, name) => {
      this.#subscriptions.set(channel, { subscriber, node: name })
      await node.subscribe(channel, subscriber)
    })
  }

  async heard(): Promise<void> {
    await Promise.all([...this.#nodes.values()].map((node) => node.heard()))
  }

  unsubscribe(channel: string): void {
    const subscription = this.#subscriptions.get(channel)
    this.#subscriptions.delete(channel)
    if (subscription) this.#nodes.get(subscription.node)?.unsubscribe(channel)
  }

  onUp(listener: () => void): void {
    this.#upListeners.add(listener)
  }

  onDown(listener: (error: ChannelkitError) => void): void {
    this.#downListeners.add(listener)
  }

  async close(): Promise<void> {
    this.#isClosed = true
    await Promise.all([...this.#nodes.values()].map((node) => node.close()))
  }

  /** Tries out, once, what the servers allow. */
  #checked(): Promise<void> {
    this.#checking ??= this.#tryOut().catch((error) => {
      this.#checking = undefined
      throw error
    })
    return this.#checking
  }

  async #tryOut(): Promise<void> {
    const { base } = this.#options
    const args = ['EVAL', scripts.tryOut.text, '1', base, '', this.publish]
    await this.#try(base, (node) => node.attempt(args))
  }

  async #loop(key: string, attempt: Attempt): Promise<unknown> {
    await this.#checked()
    return this.#try(key, attempt)
  }

  async #try(key: string, attempt: Attempt): Promise<unknown> {
    const slot = this.#slotOf(key)
    const since = performance.now()
    let isWritten = false
    const fault = (error: unknown): ChannelkitError =>
      isWritten ? withDoubt(this.#fault(error)) : this.#fault(error)
    for (;;) {
      let name: string | undefined
      try {
        if (this.#ranges.length === 0) await this.#refresh()
        name = this.#ownerOf(slot)
        if (name === undefined) throw new Error(`nobody serves slot ${slot}`)
        return await attempt(this.#node(name), name)
      } catch (error) {
        isWritten ||= name !== undefined && isLostReply(error)
        const kind = redirection(error)
        if (!kind && !isAway(error)) throw fault(error)
        if (isChannelkitError(error, 'ERR_INVALID_CONFIG')) throw error
        const isLate = performance.now() - since >= this.#options.timeoutMs
        if (isLate || this.#isClosed) throw fault(error)
        await this.#refresh().catch(() => {
          // Nobody can be asked: the next try tells.
        })
        // Who has been away for long, and was not replaced, is not waited for again.
        const isSame = name !== undefined && this.#ownerOf(slot) === name
        if (isSame && this.#nodes.get(name as string)?.isAway) throw fault(error)
        if (kind !== 'MOVED') await pause()
      }
    }
  }

  #slotOf(key: string): number {
    let slot = this.#slots.get(key)
    if (slot === undefined) {
      if (this.#slots.size >= maxRemembered) this.#slots.clear()
      slot = keySlot(key)
      this.#slots.set(key, slot)
    }
    return slot
  }

  #ownerOf(slot: number): string | undefined {
    return this.#ranges.find(({ first, last }) => first <= slot && slot <= last)?.node
  }

  #node(name: string): ServerLink {
    let node = this.#nodes.get(name)
    if (!node) {
      const { addressOf, timeoutMs, base, clock } = this.#options
      const place = nodeOf(name)
      node = new ServerLink({
        locate: async () => addressOf(place),
        shownAs: name,
        timeoutMs,
        base,
        clock,
        isNode: true,
      })
      node.onUp(() => this.#tellUp())
      node.onDown((error) => {
        if (this.#ranges.some((range) => range.node === name)) {
          for (const listener of [...this.#downListeners]) listener(error)
        }
      })
      this.#nodes.set(name, node)
    }
    return node
  }

  #tellUp(): void {
    for (const listener of [...this.#upListeners]) listener()
  }

  /** Asks the first server that answers who serves what. */
  #refresh(): Promise<void> {
    this.#refreshing ??= this.#askForSlots().finally(() => {
      this.#refreshing = undefined
    })
    return this.#refreshing
  }

  async #askForSlots(): Promise<void> {
    const known = [...new Set(this.#ranges.map(({ node }) => node))]
    const seeds = this.#options.seeds.map(nameOf)
    const names = [...new Set([...shuffled(known), ...seeds])]
    let lastError: unknown
    for (const name of names) {
      try {
        const reply = await this.#node(name).attempt(['CLUSTER', 'SLOTS'])
        this.#setRanges(reply as SlotReply, name)
        return
      } catch (error) {
        if (isChannelkitError(error, 'ERR_INVALID_CONFIG')) throw error
        if (error instanceof Error && /cluster support disabled/.test(error.message)) {
          throw new ChannelkitError(
            'ERR_INVALID_CONFIG',
            `Redis at ${name} is no cluster; use redis:// instead of redis+cluster://`,
            { cause: error },
          )
        }
        lastError = error
      }
    }
    throw lastError
  }

  #setRanges(reply: SlotReply, askedName: string): void {
    this.#ranges = reply.map(([first, last, [host, port]]) => {
      const own = host.length > 0 ? host.toString() : nodeOf(askedName).host
      return { first, last, node: nameOf({ host: own, port }) }
    })
    const serving = new Set(this.#ranges.map(({ node }) => node))
    const seeds = new Set(this.#options.seeds.map(nameOf))
    let isMoved = false
    for (const [channel, subscription] of this.#subscriptions) {
      const owner = this.#ownerOf(this.#slotOf(channel))
      if (owner === undefined || owner === subscription.node) continue
      this.#nodes.get(subscription.node)?.unsubscribe(channel)
      subscription.node = owner
      isMoved = true
      this.#node(owner)
        .subscribe(channel, subscription.subscriber)
        .then(
          () => this.#tellUp(),
          () => {
            // Its link subscribes when it is up.
          },
        )
    }
    for (const [name, node] of this.#nodes) {
      if (serving.has(name) || seeds.has(name)) continue
      this.#nodes.delete(name)
      void node.close()
    }
    if (isMoved) this.#tellUp()
  }

  #fault(error: unknown): ChannelkitError {
    if (isChannelkitError(error)) return error
    const { shownAs } = this.#options
    if (redirection(error)) {
      return new ChannelkitError(
        'ERR_BACKEND_UNAVAILABLE',
        `the Redis cluster at ${shownAs} is moving a slot to another server, which took longer than timeoutMs; try again, and reshard at a quiet hour`,
        { cause: error },
      )
    }
    if (!isOutage(error)) return replyFault(error, shownAs)
    const reason = error instanceof Error ? `: ${error.message}` : ''
    return new ChannelkitError(
      'ERR_BACKEND_UNAVAILABLE',
      `the Redis cluster at ${shownAs} does not serve this now${reason}; start its servers, or correct its URL`,
      { cause: error },
    )
  }
}

type Attempt = (node: ServerLink, name: string) => Promise<unknown>

type SlotReply = readonly (readonly [number, number, readonly [Buffer, number]])[]

function isAway(error: unknown): boolean {
  return isChannelkitError(error, 'ERR_BACKEND_UNAVAILABLE') || isOutage(error)
}

/** Whether a server sends a call on, since the slot is another's, or is being moved to one. */
function redirection(error: unknown): 'MOVED' | 'ASK' | undefined {
  const [, kind] = (error instanceof Error && /^(MOVED|ASK) \d+ /.exec(error.message)) || []
  return kind as 'MOVED' | 'ASK' | undefined
}

function nameOf({ host, port }: RedisNode): string {
  return `${host}:${port}`
}

function nodeOf(name: string): RedisNode {
  const colon = name.lastIndexOf(':')
  return { host: name.slice(0, colon), port: Number(name.slice(colon + 1)) }
}

function shuffled<Item>(items: readonly Item[]): Item[] {
  return items
    .map((item) => ({ item, order: Math.random() }))
    .sort((a, b) => a.order - b.order)
    .map(({ item }) => item)
}

function pause(): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, retryMs * (0.5 + Math.random()))
  })
}
