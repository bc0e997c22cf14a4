import { type Content, copyContent, measureContent, storedDepth } from '../../content.ts'
import { ChannelkitError, isChannelkitError } from '../../errors.ts'
import { onAbort } from '../../internal/abort-listeners.ts'
import { repeat } from '../../internal/clock.ts'
import { Counters } from '../../internal/counters.ts'
import { type Listed, Roster } from '../../internal/roster.ts'
import {
  channelNameFault,
  groupNameFault,
  inboxOf,
  isReplyChannel,
  workChannelNameFault,
} from '../../names.ts'
import type {
  AdvancedLines,
  AdvanceOptions,
  BackendLimits,
  BackendOptions,
  ChannelBackend,
  ChannelInfo,
  HeldMessage,
  HoldOptions,
  Inbox,
  InboxOptions,
  IncomingMessage,
  LineOptions,
  LineTurn,
  Membership,
  OutgoingMessage,
  ProcessInfo,
  ReceiveOptions,
  SendFailure,
  Settlement,
  SettleOutcome,
} from '../channel-backend.ts'
import { checkReceive } from '../check-receive.ts'
import { checkEncodedSize } from '../codec.ts'
import { checkMemberships, closedError, lineFullError } from '../faults.ts'
import { checkId, delayedFullError, type LaterMessage, laterOf, lookMs } from '../later.ts'
import { resolveLimits, wholeNumber } from '../limits.ts'
import { LookTimer } from '../look-timer.ts'
import { type InboxEntry, type InboxTransport, ReplyInbox } from '../reply-inbox.ts'
import { MemoryLater } from './memory-later.ts'
import { MemoryLines, withTurn } from './memory-lines.ts'
import {
  MemoryStore,
  Queue,
  type StoredEntry,
  type StoredMessage,
  type Waiter,
} from './memory-store.ts'

/** {@link BackendOptions}, and the store to share with other memory backends of this process. */
export interface MemoryBackendOptions extends BackendOptions {
  readonly store?: MemoryStore
  /**
   * About how much memory the messages of one work channel or inbox may take, in bytes; the next is
   * refused like one beyond the capacity. Default 67,108,864.
   */
  readonly capacityBytes?: number
}

/** Why a message was not stored. */
type Refusal = 'full' | 'full-bytes' | 'line-full' | undefined

const noFailures: readonly SendFailure[] = Object.freeze([])
/** What almost every send returns, made once. */
const allStored = Promise.resolve(noFailures)

/** A receive that waits, and how to end it. */
interface Wait extends Listed {
  readonly fail: (error: unknown) => void
}

/**
 * Carries messages inside one process: a sent message is copied into its channel's queue and the
 * receiver is woken in the same turn of the event loop. No timers but one clean-up while something
 * is stored.
 */
export class MemoryBackend implements ChannelBackend, InboxTransport {
  readonly supports = Object.freeze({ multipleProcesses: false })
  readonly limits: BackendLimits
  readonly counters = new Counters()
  readonly #store: MemoryStore
  readonly #lines: MemoryLines
  readonly #later: MemoryLater
  readonly #looks: LookTimer
  readonly #isShared: boolean
  readonly #capacityBytes: number
  /** The names of this process's inboxes. */
  readonly #inboxes = new Set<string>()
  readonly #waits = new Roster<Wait>()
  /** When a full channel last had the parked messages looked through for expired ones. */
  #linesCleanedAt = Number.NEGATIVE_INFINITY
  #isClosed = false
  #stopCleaning: (() => void) | undefined

  /** @throws {ChannelkitError} `ERR_INVALID_CONFIG` */
  constructor({ store, capacityBytes = 67_108_864, ...limits }: MemoryBackendOptions = {}) {
    this.limits = resolveLimits(limits)
    this.#capacityBytes = wholeNumber('capacityBytes', capacityBytes)
    this.#store = store ?? new MemoryStore()
    this.#isShared = store !== undefined
    const { clock } = this.limits
    this.#lines = new MemoryLines(this.#store, clock, this.counters, (message) => {
      this.#putBack(message)
    })
    this.#later = new MemoryLater(this.#store, this.limits, this.counters, (message) => {
      this.#putBack(message)
    })
    this.#looks = new LookTimer({
      clock,
      look: async () => {
        this.#later.release(clock.now())
        return this.#later.nextAt()
      },
    })
  }

  async open(): Promise<void> {
    this.#checkOpen()
  }

  send(messages: readonly OutgoingMessage[]): Promise<readonly SendFailure[]> {
    if (this.#isClosed) return Promise.reject(closedError())
    let failures: SendFailure[] | undefined
    try {
      for (let index = 0; index < messages.length; index++) {
        try {
          this.#sendOne(messages[index] as OutgoingMessage)
        } catch (error) {
          failures = collect(failures, index, error)
        }
      }
    } catch (error) {
      return Promise.reject(error)
    }
    this.counters.add('sent', messages.length - (failures?.length ?? 0))
    return failures ? Promise.resolve(failures) : allStored
  }

  async receive(
    channels: readonly string[],
    options: ReceiveOptions,
  ): Promise<readonly IncomingMessage[]> {
    this.#checkOpen()
    checkReceive(channels, options)
    const { waitMs, lines } = options
    if (lines) this.#lines.look(lines.leaseMs)
    const taken = this.#take(channels, options)
    if (taken.length > 0 || waitMs === 0) return taken
    // Another backend on this store may send for later, and be closed by then.
    if (this.#isShared) this.#looks.atLeastEvery(lookMs)
    return this.#wait(channels, options, () => this.#take(channels, options))
  }

  async handBack(messages: readonly IncomingMessage[]): Promise<void> {
    this.#checkOpen()
    for (const message of messages) {
      if (message.hold && !this.#later.giveUp({ ...message, hold: message.hold })) {
        this.counters.add('lapsed')
      } else if (message.turn && !(message.hold && this.#lines.isLost(message.turn))) {
        this.#lines.handBack(message)
      } else {
        this.#putBack(message)
      }
    }
  }

  async advanceLines(turns: readonly LineTurn[], options: AdvanceOptions): Promise<AdvancedLines> {
    this.#checkOpen()
    const { messages, lost } = this.#lines.advance(turns, options)
    this.counters.add('received', messages.length)
    return { messages: this.#hold(messages, options.hold), lost }
  }

  async renewLines(turns: readonly LineTurn[], leaseMs: number): Promise<readonly LineTurn[]> {
    this.#checkOpen()
    return this.#lines.renew(turns, leaseMs)
  }

  async cancel(channel: string, ids: readonly string[]): Promise<readonly boolean[]> {
    this.#checkOpen()
    const fault = workChannelNameFault(channel)
    if (fault) throw fault
    for (const id of ids) checkId(id)
    return this.#later.cancel(channel, ids)
  }

  async settle(settlements: readonly Settlement[]): Promise<readonly SettleOutcome[]> {
    this.#checkOpen()
    const outcomes = this.#later.settle(settlements, (next) => {
      const { channel, content, attempts = 0 } = next
      const { memoryBytes: bytes } = measureContent(content, storedDepth)
      const expiresAt = next.expiresAt ?? this.limits.clock.now() + this.limits.expiryMs
      if (this.#roomOn(channel, this.#queue(channel), bytes)) return false
      const id = this.#store.nextId++
      const copy = copyContent(content)
      this.#queue(channel).push({ id, channel, content: copy, expiresAt, attempts, bytes })
      this.#wake(channel)
      return true
    })
    for (const { next } of settlements) {
      if (next?.deliverAt !== undefined) this.#looks.by(next.deliverAt)
    }
    return outcomes
  }

  async renewHolds(
    messages: readonly HeldMessage[],
    leaseMs: number,
  ): Promise<readonly HeldMessage[]> {
    this.#checkOpen()
    return this.#later.renew(messages, leaseMs)
  }

  async openInbox<Owner>(options?: InboxOptions): Promise<Inbox<Owner>> {
    this.#checkOpen()
    const inbox = new ReplyInbox<Owner>(this, this.limits, this.counters, options)
    this.#store.inboxes.set(inbox.name, new Queue())
    this.#inboxes.add(inbox.name)
    return inbox
  }

  async groupAdd(memberships: readonly Membership[]): Promise<void> {
    this.#checkOpen()
    checkMemberships(memberships)
    const expiresAt = this.limits.clock.now() + this.limits.groupExpiryMs
    for (const { group, channel } of memberships) this.#record(group, channel, expiresAt)
    this.#tellInboxes(memberships, ({ group, channel }) => ({
      kind: 'add',
      group,
      channel,
      expiresAt,
    }))
    this.#cleanLater()
  }

  async groupDiscard(memberships: readonly Membership[]): Promise<void> {
    this.#checkOpen()
    checkMemberships(memberships)
    await this.dropMemberships(memberships)
    this.#tellInboxes(memberships, ({ group, channel }) => ({ kind: 'discard', group, channel }))
  }

  async groupSend(
    messages: readonly { readonly group: string; readonly content: Content }[],
  ): Promise<readonly SendFailure[]> {
    this.#checkOpen()
    let failures: SendFailure[] | undefined
    for (let index = 0; index < messages.length; index++) {
      const { group, content } = messages[index] as (typeof messages)[number]
      try {
        const fault = groupNameFault(group)
        if (fault) throw fault
        const bytes = this.#checkedBytes(content)
        this.#groupSendOne(group, copyContent(content), bytes)
      } catch (error) {
        failures = collect(failures, index, error)
      }
    }
    return failures ?? noFailures
  }

  async groupChannels(group: string): Promise<readonly string[]> {
    this.#checkOpen()
    const fault = groupNameFault(group)
    if (fault) throw fault
    return [...this.#liveMembers(group)]
  }

  async groups(): Promise<readonly { readonly group: string; readonly members: number }[]> {
    this.#checkOpen()
    return [...this.#store.groups.keys()]
      .map((group) => ({ group, members: [...this.#liveMembers(group)].length }))
      .filter(({ members }) => members > 0)
  }

  async channels(): Promise<readonly ChannelInfo[]> {
    this.#checkOpen()
    await this.cleanUp()
    const infos: ChannelInfo[] = []
    for (const [channel, messages] of this.#waitingByChannel()) {
      const oldest = messages.reduce((a, b) => (a.id <= b.id ? a : b))
      infos.push({ channel, waiting: messages.length, oldestExpiresAt: oldest.expiresAt })
    }
    for (const [channel, queue] of this.#store.inboxes) {
      const messages = [...queue].filter(isMessage)
      const [oldest] = messages
      if (oldest) {
        infos.push({ channel, waiting: messages.length, oldestExpiresAt: oldest.expiresAt })
      }
    }
    return infos
  }

  async announce(info: ProcessInfo, leaseMs: number): Promise<void> {
    this.#checkOpen()
    const expiresAt = this.limits.clock.now() + leaseMs
    this.#store.processes.set(info.id, { info: structuredClone(info), expiresAt })
  }

  async withdraw(id: string): Promise<void> {
    this.#checkOpen()
    this.#store.processes.delete(id)
  }

  async processes(): Promise<readonly ProcessInfo[]> {
    this.#checkOpen()
    const now = this.limits.clock.now()
    return [...this.#store.processes.values()]
      .filter(({ expiresAt }) => expiresAt > now)
      .map(({ info }) => structuredClone(info))
  }

  async cleanUp(): Promise<number> {
    this.#checkOpen()
    const now = this.limits.clock.now()
    this.#later.release(now)
    let count = 0
    for (const [channel, queue] of this.#store.channels) {
      count += queue.filter(({ expiresAt }) => expiresAt > now)
      if (queue.size === 0) this.#store.channels.delete(channel)
    }
    count += this.#lines.cleanUp(now)
    for (const queue of this.#store.inboxes.values()) {
      count += queue.filter(({ expiresAt }) => expiresAt > now)
    }
    for (const [group, members] of this.#store.groups) {
      for (const [channel, expiresAt] of members) if (expiresAt <= now) members.delete(channel)
      if (members.size === 0) this.#store.groups.delete(group)
    }
    for (const [id, { expiresAt }] of this.#store.processes) {
      if (expiresAt <= now) this.#store.processes.delete(id)
    }
    for (const [name, waiters] of this.#store.waiters) {
      if (waiters.length === 0) this.#store.waiters.delete(name)
    }
    if (count > 0) this.counters.add('dropped.expired', count)
    return count
  }

  async flush(): Promise<void> {
    this.#checkOpen()
    this.#store.channels.clear()
    this.#store.lines.clear()
    this.#store.later.clear()
    this.#store.delayedCounts.clear()
    this.#store.parkedCounts.clear()
    this.#store.groups.clear()
    this.#store.processes.clear()
    for (const inbox of this.#store.inboxes.keys()) this.#store.inboxes.set(inbox, new Queue())
  }

  async close(): Promise<void> {
    if (this.#isClosed) return
    for (const inbox of this.#inboxes) await this.closeInbox(inbox)
    this.#isClosed = true
    this.#stopCleaning?.()
    this.#lines.close()
    this.#looks.stop()
    for (const wait of this.#waits.all()) wait.fail(closedError())
  }

  async receiveEntries(inbox: string, options: ReceiveOptions): Promise<readonly InboxEntry[]> {
    this.#checkOpen()
    const taken = this.#takeEntries(inbox, options.max)
    if (taken.length > 0 || options.waitMs === 0) return taken
    return this.#wait([inbox], options, () => this.#takeEntries(inbox, options.max))
  }

  async renewMemberships(
    inbox: string,
    held: readonly Membership[],
    expiresAt: number,
  ): Promise<void> {
    this.#checkOpen()
    const ended = this.#unreadDiscards(inbox)
    for (const { group, channel } of held) {
      if (!ended?.has(`${channel} ${group}`)) this.#record(group, channel, expiresAt)
    }
  }

  /** Memberships of which an inbox has yet to read that they were discarded. */
  #unreadDiscards(inbox: string): ReadonlySet<string> | undefined {
    const queue = this.#store.inboxes.get(inbox)
    if (!queue || queue.size === queue.places) return undefined
    const ended = new Set<string>()
    for (const { entry } of queue) {
      if (entry.kind === 'discard') ended.add(`${entry.channel} ${entry.group}`)
    }
    return ended
  }

  async dropMemberships(memberships: readonly Membership[]): Promise<void> {
    this.#checkOpen()
    for (const { group, channel } of memberships) {
      const members = this.#store.groups.get(group)
      if (members?.delete(channel) && members.size === 0) this.#store.groups.delete(group)
    }
  }

  async closeInbox(inbox: string): Promise<void> {
    this.#inboxes.delete(inbox)
    this.#store.inboxes.delete(inbox)
    this.#store.waiters.delete(inbox)
    for (const [group, members] of this.#store.groups) {
      for (const channel of members.keys()) {
        if (channel.startsWith(inbox)) members.delete(channel)
      }
      if (members.size === 0) this.#store.groups.delete(group)
    }
  }

  #sendOne(message: OutgoingMessage): void {
    const { channel, content, expiresAt, attempts, handsOver } = message
    const fault = channelNameFault(channel)
    if (fault) throw fault
    const bytes = this.#checkedBytes(content)
    const copy = handsOver ? content : copyContent(content)
    const later = laterOf(message, this.limits)
    if (later) {
      this.#sendLater({ channel, content: copy, attempts: attempts ?? 0, bytes }, later)
      return
    }
    const expiry = expiresAt ?? this.limits.clock.now() + this.limits.expiryMs
    const refusal = isReplyChannel(channel)
      ? this.#storeEntry(inboxOf(channel), {
          entry: { kind: 'message', channel, content: copy },
          expiresAt: expiry,
          bytes,
        })
      : this.#push(channel, copy, bytes, expiry, attempts ?? 0)
    if (refusal) throw this.#refused(channel, refusal)
    this.#cleanLater()
  }

  #sendLater(
    message: { channel: string; content: Content; attempts: number; bytes: number },
    later: LaterMessage,
  ): void {
    const { expiresAt, deliverAt } = later
    if (!this.#later.add({ ...message, expiresAt }, later)) {
      this.counters.add('dropped.full')
      throw delayedFullError(message.channel, this.limits.delayedCapacity)
    }
    this.#looks.by(deliverAt)
  }

  #push(
    channel: string,
    content: Content,
    bytes: number,
    expiresAt: number,
    attempts: number,
  ): Refusal {
    const queue = this.#queue(channel)
    const refusal = this.#roomOn(channel, queue, bytes) ?? this.#roomInLine(channel, content)
    if (refusal) {
      this.counters.add('dropped.full')
      return refusal
    }
    queue.push({ id: this.#store.nextId++, channel, content, expiresAt, attempts, bytes })
    this.#wake(channel)
    return undefined
  }

  #roomOn(channel: string, queue: Queue<StoredMessage>, bytes: number): Refusal {
    const capacity = this.limits.capacityOf(channel)
    const refusal = this.#roomBeside(channel, queue, bytes, capacity)
    if (!refusal) return undefined
    const now = this.limits.clock.now()
    let expired = queue.dropExpired(now)
    if (this.#lines.parkedOn(channel) > 0 && this.#linesCleanedAt !== now) {
      this.#linesCleanedAt = now
      expired += this.#lines.cleanUp(now)
    }
    if (expired === 0) return refusal
    this.counters.add('dropped.expired', expired)
    return this.#roomBeside(channel, queue, bytes, capacity)
  }

  #roomBeside(
    channel: string,
    queue: Queue<StoredMessage>,
    bytes: number,
    capacity: number,
  ): Refusal {
    const waiting = queue.size + this.#lines.parkedOn(channel)
    if (waiting >= capacity) return 'full'
    const waitingBytes = queue.bytes + this.#lines.parkedBytesOn(channel)
    return waiting > 0 && waitingBytes + bytes > this.#capacityBytes ? 'full-bytes' : undefined
  }

  /** Refuses a message whose line holds its share of the channel already. */
  #roomInLine(channel: string, content: Content): Refusal {
    const capacity = this.limits.lineCapacity
    if (this.#lines.parkedOn(channel) < capacity) return undefined
    const line = content.reply_channel
    if (typeof line !== 'string') return undefined
    return this.#lines.parkedInLine(line, channel) < capacity ? undefined : 'line-full'
  }

  *#waitingByChannel(): Iterable<[string, IncomingMessage[]]> {
    const channels = new Set([...this.#store.channels.keys(), ...this.#store.parkedCounts.keys()])
    for (const channel of channels) {
      const messages = [...(this.#store.channels.get(channel) ?? [])]
      if (this.#lines.parkedOn(channel) > 0) {
        for (const { parked } of this.#store.lines.values()) {
          for (const message of parked) if (message.channel === channel) messages.push(message)
        }
      }
      if (messages.length > 0) yield [channel, messages]
    }
  }

  #putBack(message: IncomingMessage): void {
    const { memoryBytes: bytes } = measureContent(message.content, storedDepth)
    this.#queue(message.channel).insert(
      { ...withTurn(message), bytes },
      (other) => other.id < message.id,
    )
    this.#wake(message.channel)
  }

  #storeEntry(inbox: string, stored: StoredEntry): Refusal {
    const queue = this.#store.inboxes.get(inbox)
    if (!queue) {
      this.counters.add('dropped.gone')
      return undefined
    }
    let refusal = this.#roomInInbox(queue, stored.bytes)
    if (refusal) {
      const expired = queue.dropExpired(this.limits.clock.now())
      if (expired > 0) {
        this.counters.add('dropped.expired', expired)
        refusal = this.#roomInInbox(queue, stored.bytes)
      }
      if (refusal) {
        this.counters.add('dropped.full')
        return refusal
      }
    }
    queue.push(stored)
    this.#wake(inbox)
    return undefined
  }

  #roomInInbox(queue: Queue<StoredEntry>, bytes: number): Refusal {
    if (queue.places >= this.limits.inboxCapacity) return 'full'
    const isOver = queue.bytes + bytes > this.#capacityBytes
    return queue.places > 0 && isOver ? 'full-bytes' : undefined
  }

  #groupSendOne(group: string, content: Content, bytes: number): void {
    const expiresAt = this.limits.clock.now() + this.limits.expiryMs
    const inboxes = new Set<string>()
    for (const channel of this.#liveMembers(group)) {
      if (isReplyChannel(channel)) inboxes.add(inboxOf(channel))
      else this.#push(channel, copyContent(content), bytes, expiresAt, 0)
    }
    for (const inbox of inboxes) {
      this.#storeEntry(inbox, { entry: { kind: 'group', group, content }, expiresAt, bytes })
    }
    this.#cleanLater()
  }

  /** About how much memory content takes that may be sent. */
  #checkedBytes(content: Content): number {
    const measure = measureContent(content)
    checkEncodedSize(content, measure, this.limits.maxContentBytes)
    return measure.memoryBytes
  }

  #tellInboxes(
    memberships: readonly Membership[],
    entryOf: (membership: Membership) => InboxEntry,
  ): void {
    for (const membership of memberships) {
      if (!isReplyChannel(membership.channel)) continue
      const queue = this.#store.inboxes.get(inboxOf(membership.channel))
      if (!queue) continue
      // Changes of membership do not count against the capacity: losing one would change who hears.
      queue.push({ entry: entryOf(membership), expiresAt: Number.POSITIVE_INFINITY, bytes: 0 })
      this.#wake(inboxOf(membership.channel))
    }
  }

  #record(group: string, channel: string, expiresAt: number): void {
    // An inbox that is closed has no clients left to be members.
    if (isReplyChannel(channel) && !this.#store.inboxes.has(inboxOf(channel))) return
    let members = this.#store.groups.get(group)
    if (!members) {
      members = new Map()
      this.#store.groups.set(group, members)
    }
    members.set(channel, expiresAt)
  }

  *#liveMembers(group: string): Iterable<string> {
    const now = this.limits.clock.now()
    for (const [channel, expiresAt] of this.#store.groups.get(group) ?? []) {
      if (expiresAt > now) yield channel
    }
  }

  #queue(channel: string): Queue<StoredMessage> {
    let queue = this.#store.channels.get(channel)
    if (!queue) {
      queue = new Queue()
      this.#store.channels.set(channel, queue)
    }
    return queue
  }

  #take(
    channels: readonly string[],
    { max, lines, hold }: ReceiveOptions,
  ): readonly IncomingMessage[] {
    const taken = lines ? this.#takeByLines(channels, max, lines) : this.#takePlain(channels, max)
    return this.#hold(taken, hold)
  }

  #hold(
    messages: readonly IncomingMessage[],
    hold: HoldOptions | undefined,
  ): readonly IncomingMessage[] {
    if (!hold || messages.length === 0) return messages
    const held = this.#later.hold(messages, hold)
    this.#looks.by(this.limits.clock.now() + hold.leaseMs)
    return held
  }

  /** Divides the batch between all that goes by lines and all that does not, in either order. */
  #takeByLines(
    channels: readonly string[],
    max: number,
    lines: LineOptions,
  ): readonly IncomingMessage[] {
    const now = this.limits.clock.now()
    const plain = channels.filter((channel) => !lines.channels.includes(channel))
    // Rounded up or down at random, or a batch of one would always be of the same kind.
    const share = Math.floor((max * lines.channels.length) / channels.length + Math.random())
    const taken: IncomingMessage[] = []
    this.#lines.take(lines, share, now, taken)
    this.counters.add('received', taken.length)
    if (plain.length > 0 && taken.length < max) {
      taken.push(...this.#takePlain(plain, max - taken.length))
    }
    const before = taken.length
    if (before < max) this.#lines.take(lines, max - before, now, taken)
    this.counters.add('received', taken.length - before)
    return taken
  }

  #takePlain(channels: readonly string[], max: number): readonly IncomingMessage[] {
    const now = this.limits.clock.now()
    const waiting: Queue<StoredMessage>[] = []
    // A random start: with a turn kept across calls, two callers could step past each other for ever.
    const start = Math.floor(Math.random() * channels.length)
    for (let step = 0; step < channels.length; step++) {
      const channel = channels[(start + step) % channels.length] as string
      const queue = this.#store.channels.get(channel)
      if (queue) waiting.push(queue)
    }
    const taken: IncomingMessage[] = []
    for (let left = waiting.length; left > 0; left--) {
      const queue = waiting[waiting.length - left] as Queue<StoredMessage>
      // What one channel leaves of its share goes to those behind it.
      const share = Math.ceil((max - taken.length) / left)
      this.#takeFrom(queue, share, now, taken)
    }
    for (const queue of waiting) {
      if (taken.length === max) break
      this.#takeFrom(queue, max - taken.length, now, taken)
    }
    this.counters.add('received', taken.length)
    return taken
  }

  #takeFrom(queue: Queue<StoredMessage>, most: number, now: number, taken: IncomingMessage[]) {
    let left = most
    while (left > 0) {
      const message = queue.shift()
      if (!message) return
      if (message.expiresAt <= now) {
        this.counters.add('dropped.expired')
        continue
      }
      taken.push(withTurn(message))
      left--
    }
  }

  #takeEntries(inbox: string, max: number): readonly InboxEntry[] {
    const queue = this.#store.inboxes.get(inbox)
    const taken: InboxEntry[] = []
    if (!queue) return taken
    const now = this.limits.clock.now()
    while (taken.length < max) {
      const stored: StoredEntry | undefined = queue.shift()
      if (!stored) break
      if (stored.expiresAt <= now) this.counters.add('dropped.expired')
      else taken.push(stored.entry)
    }
    return taken
  }

  /**
   * Waits until `take` gives something. The wake-up is carried out in a microtask, so that all
   * that arrives in one go is taken in one batch.
   */
  #wait<T>(
    names: readonly string[],
    { waitMs, signal }: ReceiveOptions,
    take: () => readonly T[],
  ): Promise<readonly T[]> {
    if (signal?.aborted) return Promise.reject(signal.reason)
    return new Promise((resolve, reject) => {
      let isOver = false
      const settle = (): void => {
        isOver = true
        unlisten()
        this.#waits.delete(wait)
        ignoreAbort?.()
        cancelTimer?.()
      }
      const fail = (error: unknown): void => {
        settle()
        reject(error)
      }
      const wait: Wait = { fail, place: -1 }
      const tryTake = (): void => {
        if (isOver) {
          // The wait ended after its wake-up.
          this.#passOn(names)
          return
        }
        const taken = take()
        if (taken.length === 0) {
          // Another receiver was quicker.
          unlisten = this.#listen(waiter)
          return
        }
        settle()
        resolve(taken)
        this.#passOn(names)
      }
      const waiter: Waiter = {
        names,
        wake: () => {
          unlisten()
          queueMicrotask(tryTake)
        },
      }
      let unlisten = this.#listen(waiter)
      this.#waits.add(wait)
      const ignoreAbort = signal && onAbort(signal, () => fail(signal.reason))
      const cancelTimer = Number.isFinite(waitMs)
        ? this.limits.clock.schedule(() => {
            settle()
            resolve([])
          }, waitMs)
        : undefined
    })
  }

  /** Wakes the next who waits for what a woken receiver left, or it would lie there unnoticed. */
  #passOn(names: readonly string[]): void {
    for (const name of names) {
      const queue = this.#store.channels.get(name) ?? this.#store.inboxes.get(name)
      if (queue && queue.size > 0) this.#wake(name)
    }
  }

  #listen(waiter: Waiter): () => void {
    for (const name of waiter.names) {
      const waiters = this.#store.waiters.get(name)
      if (waiters) waiters.push(waiter)
      else this.#store.waiters.set(name, [waiter])
    }
    return () => {
      for (const name of waiter.names) {
        const waiters = this.#store.waiters.get(name)
        const place = waiters?.indexOf(waiter) ?? -1
        if (place !== -1) waiters?.splice(place, 1)
      }
    }
  }

  #wake(name: string): void {
    this.#store.waiters.get(name)?.[0]?.wake()
  }

  /** One timer while anything is stored, none on an empty store. */
  #cleanLater(): void {
    this.#stopCleaning ??= repeat(
      this.limits.clock,
      () => {
        void this.cleanUp()
        const { channels, groups, inboxes, lines } = this.#store
        if (channels.size + groups.size + lines.size > 0) return
        for (const queue of inboxes.values()) if (queue.size > 0) return
        this.#stopCleaning?.()
        this.#stopCleaning = undefined
      },
      Math.min(this.limits.expiryMs, this.limits.groupExpiryMs),
    )
  }

  #refused(channel: string, refusal: Refusal): ChannelkitError {
    if (refusal === 'line-full') return lineFullError(channel, this.limits.lineCapacity)
    const isReply = isReplyChannel(channel)
    const name = isReply ? inboxOf(channel) : channel
    const { inboxCapacity, capacityOf } = this.limits
    const [amount, option] =
      refusal === 'full-bytes'
        ? [`${this.#capacityBytes} bytes`, 'capacityBytes']
        : [`${isReply ? inboxCapacity : capacityOf(channel)} messages`, 'capacity']
    return new ChannelkitError(
      'ERR_CHANNEL_FULL',
      `channel ${name} holds its capacity of ${amount}; start more workers or raise its ${option}`,
    )
  }

  #checkOpen(): void {
    if (this.#isClosed) throw closedError()
  }
}

function isMessage({ entry }: StoredEntry): boolean {
  return entry.kind === 'message' || entry.kind === 'group'
}

function collect(
  failures: SendFailure[] | undefined,
  index: number,
  error: unknown,
): SendFailure[] {
  if (!isChannelkitError(error)) throw error
  const list = failures ?? []
  list.push({ index, error })
  return list
}
