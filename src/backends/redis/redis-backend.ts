import type { Content } from '../../content.ts'
import { ChannelkitError } from '../../errors.ts'
import { repeat } from '../../internal/clock.ts'
import { Counters } from '../../internal/counters.ts'
import {
  channelNameFault,
  groupNameFault,
  inboxOf,
  isReplyChannel,
  randomName,
  workChannelNameFault,
} from '../../names.ts'
import type {
  AdvancedLines,
  AdvanceOptions,
  BackendLimits,
  BackendOptions,
  BatchMark,
  ChannelBackend,
  ChannelInfo,
  HeldMessage,
  HoldOptions,
  Inbox,
  InboxOptions,
  IncomingMessage,
  LineTurn,
  Membership,
  OutgoingMessage,
  ProcessInfo,
  ReceiveOptions,
  SendFailure,
  SendOptions,
  Settlement,
  SettleOutcome,
} from '../channel-backend.ts'
import { checkReceive } from '../check-receive.ts'
import { type Encoded, encodeContent } from '../codec.ts'
import { ContentCodec } from '../content-codec.ts'
import type { EncryptionOptions, SealPlace } from '../content-seal.ts'
import {
  checkMemberships,
  checkNumber,
  closedError,
  copyMembership,
  lineFullError,
  ours,
} from '../faults.ts'
import { checkId, delayedFullError, laterOf, lookMs, mostPerLook } from '../later.ts'
import { resolveLimits } from '../limits.ts'
import { LookTimer } from '../look-timer.ts'
import { readProcessInfo } from '../process-info.ts'
import { type InboxEntry, type InboxTransport, ReplyInbox } from '../reply-inbox.ts'
import { ServerClock } from '../server-clock.ts'
import { BatchQueue, type NewEntry, type NewLaterEntry, type Outcome } from './batch-queue.ts'
import { InboxReader } from './inbox-reader.ts'
import {
  isMessage,
  makeBlock,
  makeWorkBlocks,
  type NewWorkMessage,
  type RawInboxEntry,
  readInboxEntry,
  readWorkEntry,
  unpack,
  type WorkEntry,
  withLength,
} from './packed.ts'
import { isInDoubt, type RedisLink } from './redis-link.ts'
import { Bases, mostDead, type Script, scripts } from './wire.ts'
import { type Claimed, type HandedOver, WorkReader } from './work-reader.ts'

/** What {@link RedisBackend} is given beside the limits. */
export interface RedisSetup {
  /** Start of every key. */
  readonly prefix: string
  readonly connect: (base: string, clock: ServerClock) => RedisLink
  readonly encryption?: EncryptionOptions | undefined
}

interface NewWorkEntry extends NewEntry, NewWorkMessage {
  readonly channel: string
}

interface NewInboxEntry extends NewEntry {
  /** `m`, `g`, `a` or `d`: see `wire.ts`. */
  readonly kind: string
}

/** Whether it may stand in a block: a message that lives as long as others. */
function isUsual({ kind, expiresAt }: NewInboxEntry): boolean {
  return expiresAt === undefined && isMessage(kind)
}

/** An inbox of this process. */
interface OwnInbox {
  readonly inbox: ReplyInbox<unknown>
  readonly reader: InboxReader
}

// An inbox is forgotten so many times the longest expiry after its process was last heard of: a
// process that was stopped for a while finds it again, and what a crashed one left goes.
const inboxLeaseExpiries = 3
// How often a lease is renewed and expired messages are looked for, as a part of the shortest expiry.
const maintenanceShare = 0.5
// Memberships in one call: some half a millisecond.
const recordBatch = 500
// Calls under way at once where one is made for each of many groups or inboxes.
const mostCalls = 100

// Where no process receives by lines, a line's ready head is looked at so often, in milliseconds.
const longestLookMs = 15_000

// The marks of batches are kept for twice as long.
const markMs = 60_000

// What is published to an inbox before its reader says that it keeps up: bounds what waits in the connection.
const handOverWindow = 8
// So long a process remembers that somebody takes a channel's messages one by one, and of so many channels.
const singleMs = 60_000
const mostSingles = 10_000

const noFailures: readonly SendFailure[] = Object.freeze([])
const noEntries: readonly (number | Buffer)[] = Object.freeze([])

/**
 * Carries messages through Redis or Valkey. What lies there, and the scripts that read and write it,
 * stand in `wire.ts`.
 *
 * What is sent in one turn of the event loop goes to its slot in one call, and what is sent while a
 * call is under way in the next.
 */
export class BaseRedisBackend implements ChannelBackend, InboxTransport {
  readonly supports = Object.freeze({ multipleProcesses: true })
  readonly limits: BackendLimits
  readonly counters = new Counters()
  readonly #codec: ContentCodec
  readonly #link: RedisLink
  readonly #bases: Bases
  /** Given by a test; else the scripts ask the server. */
  readonly #ownClock: boolean
  readonly #process = randomName()
  readonly #work: BatchQueue<NewWorkEntry>
  readonly #later: BatchQueue<NewLaterEntry>
  readonly #pushes = new Map<string, BatchQueue<NewInboxEntry>>()
  readonly #groupSends = new Map<string, Promise<void>>()
  readonly #reader: WorkReader
  #listening: Promise<void> | undefined
  readonly #inboxes = new Map<string, OwnInbox>()
  readonly #inboxLeaseMs: number
  /** Announcements of this process, to be made again where they were lost. */
  readonly #announced = new Map<string, { readonly json: string; readonly until: number }>()
  #handBacks = 0
  #settles = 0
  #cancels = 0
  #batches = 0
  readonly #nextBatch = () => ({ sender: this.#process, number: ++this.#batches })
  /** Sender → its marked batch that may have been stored, and when it was first sent. */
  readonly #doubts = new Map<string, { readonly number: number; readonly since: number }>()
  #lastClaim = 0
  /** Channels that are to have no blocks → until when, by `performance.now()`. */
  readonly #singles = new Map<string, number>()
  /** How often the server was found not to know an inbox of this process, and how many of these are made good. */
  #losses = 0
  #healed = 0
  #healing: Promise<void> | undefined
  #mustHealAgain = false
  #cleaning: Promise<void> | undefined
  /** How many messages were deleted by `cleanUp`. */
  #deleted = 0
  #lookForLapsedMs = Number.POSITIVE_INFINITY
  readonly #looks: LookTimer
  #stopMaintenance: (() => void) | undefined
  #isClosed = false
  #closing: Promise<void> | undefined

  /** @throws {ChannelkitError} `ERR_INVALID_CONFIG` */
  constructor(options: BackendOptions, { prefix, connect, encryption }: RedisSetup) {
    this.#codec = new ContentCodec(this.counters, encryption)
    const clock = new ServerClock()
    this.#ownClock = options.clock === undefined
    this.limits = resolveLimits({ ...options, clock: options.clock ?? clock })
    const { expiryMs, groupExpiryMs } = this.limits
    this.#inboxLeaseMs = inboxLeaseExpiries * Math.max(expiryMs, groupExpiryMs)
    this.#bases = new Bases(prefix)
    this.#link = connect(this.#bases.work, clock)
    this.#link.onUp(() => this.#onUp())
    this.#link.onDown((error) => {
      this.#reader.failAll(error)
      for (const { reader } of this.#inboxes.values()) reader.fail(error)
    })
    this.#work = new BatchQueue(this.#nextBatch, (entries, id) => this.#storeWork(entries, id))
    this.#later = new BatchQueue(this.#nextBatch, (entries, id) => this.#storeLater(entries, id))
    this.#looks = new LookTimer({ clock: this.limits.clock, look: () => this.#look() })
    this.#reader = new WorkReader({
      clock: this.limits.clock,
      claim: (...args) => this.#claim(...args),
      listen: () => this.#listen(),
      read: (handed) => this.#readHanded(handed),
      returned: (handed) => this.#handBack(this.#openHanded(handed)),
      unwait: async (channels, slot) => {
        const order = { w: `${this.#process}/${slot}`, c: channels, u: this.#link.publish }
        const waited = await this.#call<number>(
          scripts.unwait,
          this.#bases.work,
          JSON.stringify(order),
        )
        if (waited === 0) await this.#link.heard()
      },
    })
  }

  async open(): Promise<void> {
    this.#checkOpen()
    await this.#link.open()
  }

  send(
    messages: readonly OutgoingMessage[],
    { mark }: SendOptions = {},
  ): Promise<readonly SendFailure[]> {
    if (mark) return this.#sendMarked(messages, mark)
    if (messages.length === 1) return this.#sendOne(messages[0] as OutgoingMessage)
    return this.#sendAll(messages)
  }

  async #sendMarked(
    messages: readonly OutgoingMessage[],
    mark: BatchMark,
  ): Promise<readonly SendFailure[]> {
    this.#checkOpen()
    const { sender, number } = mark
    const before = this.#doubts.get(sender)
    const doubt = before?.number === number ? before : undefined
    const now = this.limits.clock.now()
    if (doubt && now - doubt.since >= markMs) {
      throw new ChannelkitError(
        'ERR_BATCH_IN_DOUBT',
        'a batch may have been stored more than a minute ago, and it cannot be told any more; do not send it again',
      )
    }
    try {
      const failures =
        messages.length === 1
          ? await this.#sendOne(messages[0] as OutgoingMessage, mark)
          : await this.#sendAll(messages, mark)
      this.#doubts.delete(sender)
      return failures
    } catch (error) {
      if (!doubt && isInDoubt(error)) this.#doubts.set(sender, { number, since: now })
      throw error
    }
  }

  async #sendAll(
    messages: readonly OutgoingMessage[],
    mark?: BatchMark,
  ): Promise<readonly SendFailure[]> {
    this.#checkOpen()
    const failures: SendFailure[] = []
    /** Inbox, '' for work channels or `forLater` → what goes there, and its places in `messages`. */
    const batches = new Map<string, { readonly entries: NewEntry[]; readonly places: number[] }>()
    for (let index = 0; index < messages.length; index++) {
      try {
        const message = messages[index] as OutgoingMessage
        const entry = this.#newEntry(message)
        const target = 'later' in entry ? forLater : targetOf(message.channel)
        let batch = batches.get(target)
        if (!batch) {
          batch = { entries: [], places: [] }
          batches.set(target, batch)
        }
        batch.entries.push(entry)
        batch.places.push(index)
      } catch (error) {
        failures.push({ index, error: ours(error) })
      }
    }
    if (batches.size === 0) return failures.length > 0 ? failures : noFailures
    this.#startMaintenance()
    const kept = mark && { sender: mark.sender, number: mark.number }
    let sent = 0
    await Promise.all(
      [...batches].map(async ([target, { entries, places }]) => {
        const outcomes =
          target === ''
            ? await this.#work.add(entries as NewWorkEntry[], kept)
            : target === forLater
              ? await this.#putOff(entries as NewLaterEntry[], kept)
              : await this.#push(target, entries as NewInboxEntry[], kept)
        sent += entries.length
        for (const [place, outcome] of outcomes.entries()) {
          if (!outcome || outcome === 'gone') continue
          sent--
          const index = places[place] as number
          const { channel } = messages[index] as OutgoingMessage
          failures.push({ index, error: this.#refused(channel, outcome, target === forLater) })
        }
        this.#countDrops(outcomes)
      }),
    )
    this.#count('sent', sent)
    if (failures.length === 0) return noFailures
    return failures.sort((a, b) => a.index - b.index)
  }

  /** The way of almost every send of a consumer, without what many need. */
  async #sendOne(message: OutgoingMessage, mark?: BatchMark): Promise<readonly SendFailure[]> {
    this.#checkOpen()
    const { channel } = message
    let entry: NewEntry
    try {
      entry = this.#newEntry(message)
    } catch (error) {
      return [{ index: 0, error: ours(error) }]
    }
    this.#startMaintenance()
    const isLater = 'later' in entry
    const outcomes = isReplyChannel(channel)
      ? await this.#push(inboxOf(channel), [entry as NewInboxEntry], mark)
      : isLater
        ? await this.#putOff([entry as NewLaterEntry], mark)
        : await this.#work.add([entry as NewWorkEntry], mark)
    const [outcome] = outcomes
    if (outcome === undefined || outcome === 'gone') this.counters.add('sent')
    if (outcome === undefined) return noFailures
    this.#countDrops(outcomes)
    if (outcome === 'gone') return noFailures
    return [{ index: 0, error: this.#refused(channel, outcome, isLater) }]
  }

  #refused(channel: string, outcome: 'full' | 'line-full', isLater: boolean): ChannelkitError {
    if (outcome === 'line-full') return lineFullError(channel, this.limits.lineCapacity)
    if (isLater) return delayedFullError(channel, this.limits.delayedCapacity)
    return this.#fullError(channel)
  }

  async receive(
    channels: readonly string[],
    options: ReceiveOptions,
  ): Promise<readonly IncomingMessage[]> {
    this.#checkOpen()
    checkReceive(channels, options)
    this.#looks.atLeastEvery(lookMs)
    if (options.lines) this.#lookForLapsed(options.lines.leaseMs)
    return this.#reader.receive([...channels], options)
  }

  async handBack(messages: readonly IncomingMessage[]): Promise<void> {
    this.#checkOpen()
    await this.#handBack(messages)
  }

  async #handBack(messages: readonly IncomingMessage[]): Promise<void> {
    const id = { s: `${this.#process}.back`, n: ++this.#handBacks, p: 0, ...this.#deadline() }
    const args: (string | Buffer)[] = []
    // The last first: each then goes to the head of its channel.
    const sorted = messages.toSorted((a, b) => (String(a.id) < String(b.id) ? 1 : -1))
    for (const { id: place, channel, content, expiresAt, attempts, turn, hold } of sorted) {
      checkNumber('expiresAt', expiresAt)
      checkNumber('attempts', attempts)
      // It was let in once; a smaller limit of this process must not lose it.
      const encoded = this.#codec.encode(content, Number.POSITIVE_INFINITY, `c:${channel}`)
      const head = `${String(place).padStart(16, '0')}:${digits(expiresAt)}:${attempts}:`
      const entry = withLength(lineOf(content), encoded, head)
      args.push(channel, entry, turn?.token ?? '', hold?.token ?? '')
    }
    if (args.length === 0) return
    const order = JSON.stringify({ ...id, u: this.#link.publish })
    const [, lapsed] = await this.#call<[Buffer, number]>(
      scripts.handBack,
      this.#bases.work,
      order,
      ...args,
    )
    if (lapsed < 0) checkInTime(late)
    this.#count('lapsed', lapsed)
  }

  async advanceLines(turns: readonly LineTurn[], options: AdvanceOptions): Promise<AdvancedLines> {
    this.#checkOpen()
    if (turns.length === 0) return { messages: [], lost: [] }
    const kept = [...turns]
    const channels = [...options.channels]
    const token = this.#tokenStart()
    const { publish: u } = this.#link
    const h = holdOrder(options.hold, token)
    const order = { c: channels, lease: options.leaseMs, t: token, ...h, u, ...this.#deadline() }
    const [now, expired, packed, lost] = await this.#call<[Buffer, number, Buffer, Buffer]>(
      scripts.advance,
      this.#bases.work,
      JSON.stringify(order),
      ...kept.flatMap((turn) => [turn.line, turn.token]),
    )
    this.#count('dropped.expired', expired)
    const expiresAt = Number(now) + options.leaseMs
    const marks = { token, turnExpiresAt: expiresAt, ...holdMarks(Number(now), options.hold) }
    const { messages } = this.#messages(packed, noEntries, channels, 0, marks)
    return { messages, lost: kept.filter((_turn, index) => lost[index] === 0x31) }
  }

  async renewLines(turns: readonly LineTurn[], leaseMs: number): Promise<readonly LineTurn[]> {
    this.#checkOpen()
    if (turns.length === 0) return []
    const kept = [...turns]
    const [now, held] = await this.#call<[Buffer, Buffer]>(
      scripts.renewLines,
      this.#bases.work,
      String(leaseMs),
      ...kept.flatMap(({ line, token }) => [line, token]),
    )
    const expiresAt = Number(now) + leaseMs
    return kept
      .filter((_turn, index) => held[index] === 0x31)
      .map((turn) => ({ ...turn, expiresAt }))
  }

  async cancel(channel: string, ids: readonly string[]): Promise<readonly boolean[]> {
    this.#checkOpen()
    const fault = workChannelNameFault(channel)
    if (fault) throw fault
    const kept = [...ids]
    for (const id of kept) checkId(id)
    if (kept.length === 0) return []
    const order = { s: `${this.#process}.cancel`, n: ++this.#cancels, p: 0, c: channel }
    const [, found] = await this.#call<[Buffer, Buffer]>(
      scripts.cancel,
      this.#bases.work,
      JSON.stringify({ ...order, ...this.#deadline() }),
      ...kept,
    )
    checkInTime(found)
    return kept.map((_id, index) => found[index] === 0x31)
  }

  async settle(settlements: readonly Settlement[]): Promise<readonly SettleOutcome[]> {
    this.#checkOpen()
    const id = { s: `${this.#process}.settle`, n: ++this.#settles, p: 0, ...this.#deadline() }
    const args: (string | Buffer)[] = []
    const count = settlements.length
    let nextAt = Number.POSITIVE_INFINITY
    for (const { message, next } of settlements) {
      args.push(message.channel, message.hold.token)
      args.push(...(next ? this.#nextArguments(next) : ['', '', '', '']))
      nextAt = Math.min(nextAt, next?.deliverAt ?? nextAt)
    }
    if (count === 0) return []
    const order = JSON.stringify({ ...id, u: this.#link.publish })
    const [, found] = await this.#call<[Buffer, Buffer]>(
      scripts.settle,
      this.#bases.work,
      order,
      ...args,
    )
    checkInTime(found)
    if (Number.isFinite(nextAt)) this.#looks.by(nextAt)
    return Array.from(found.toString('latin1'), (letter) => settleOutcomes[letter] ?? 'lost')
  }

  async renewHolds(
    messages: readonly HeldMessage[],
    leaseMs: number,
  ): Promise<readonly HeldMessage[]> {
    this.#checkOpen()
    if (messages.length === 0) return []
    const kept = [...messages]
    const [now, held] = await this.#call<[Buffer, Buffer]>(
      scripts.renewHolds,
      this.#bases.work,
      String(leaseMs),
      ...kept.flatMap(({ channel, hold }) => [channel, hold.token]),
    )
    const expiresAt = Number(now) + leaseMs
    return kept
      .filter((_message, index) => held[index] === 0x31)
      .map((message) => ({ ...message, hold: { ...message.hold, expiresAt } }))
  }

  async openInbox<Owner>(options?: InboxOptions): Promise<Inbox<Owner>> {
    this.#checkOpen()
    const inbox = new ReplyInbox<Owner>(this, this.limits, this.counters, options)
    const { name } = inbox
    const base = this.#bases.inbox(name)
    const reader = new InboxReader({
      clock: this.limits.clock,
      window: this.#link.handsOver ? handOverWindow : 1,
      take: async (max, window, last) => {
        const [, isOpen, handed, packed, answer, count, number] = await this.#call<
          [Buffer, number, number, Buffer, Buffer, number, number]
        >(scripts.take, base, String(max), String(window), String(this.#deadline().d ?? ''), last)
        const entries = unpack(packed).map(({ entry }) => entry)
        const published = { count, number }
        return {
          isOpen: isOpen === 1,
          handed,
          entries,
          answer: answer.toString('latin1'),
          published,
        }
      },
      reopen: async () => {
        await this.#reopenInbox(name)
        this.#startHealing()
      },
    })
    this.#inboxes.set(name, { inbox: inbox as ReplyInbox<unknown>, reader })
    try {
      await this.#link.subscribe(`${base}in`, reader.hear)
      await this.#openInbox(name)
      await this.#noteInboxes([name])
    } catch (error) {
      this.#inboxes.delete(name)
      this.#link.unsubscribe(`${base}in`)
      throw error
    }
    this.#startMaintenance()
    return inbox
  }

  async groupAdd(memberships: readonly Membership[]): Promise<void> {
    this.#checkOpen()
    checkMemberships(memberships)
    const kept = memberships.map(copyMembership)
    const { groupExpiryMs } = this.limits
    const gone = await this.#tellInboxes(kept, 'a')
    await this.#forGroups(
      kept.filter(({ channel }) => !gone.has(inboxOf(channel))),
      (base, channels) => this.#call(scripts.record, base, String(groupExpiryMs), ...channels),
    )
    this.#startMaintenance()
  }

  async groupDiscard(memberships: readonly Membership[]): Promise<void> {
    this.#checkOpen()
    checkMemberships(memberships)
    const kept = memberships.map(copyMembership)
    await this.#tellInboxes(kept, 'd')
    await this.dropMemberships(kept)
  }

  async groupSend(
    messages: readonly { readonly group: string; readonly content: Content }[],
  ): Promise<readonly SendFailure[]> {
    this.#checkOpen()
    const failures: SendFailure[] = []
    const byGroup = new Map<string, Encoded[]>()
    for (let index = 0; index < messages.length; index++) {
      const { group, content } = messages[index] as (typeof messages)[number]
      try {
        const fault = groupNameFault(group)
        if (fault) throw fault
        const encoded = encodeContent(content, this.limits.maxContentBytes)
        const list = byGroup.get(group)
        if (list) list.push(encoded)
        else byGroup.set(group, [encoded])
      } catch (error) {
        failures.push({ index, error: ours(error) })
      }
    }
    this.#startMaintenance()
    await Promise.all([...byGroup].map(([group, list]) => this.#sendToGroup(group, list)))
    return failures.length > 0 ? failures : noFailures
  }

  async groupChannels(group: string): Promise<readonly string[]> {
    this.#checkOpen()
    const fault = groupNameFault(group)
    if (fault) throw fault
    const members = await this.#call<Buffer[]>(scripts.listMembers, this.#bases.group(group))
    return members.map(String)
  }

  async groups(): Promise<readonly { readonly group: string; readonly members: number }[]> {
    this.#checkOpen()
    const found = new Set<string>()
    for await (const keys of this.#link.keys(`${this.#bases.prefix}{g:`)) {
      for (const key of keys) {
        const group = this.#bases.groupOfKey(key)
        if (group !== undefined) found.add(group)
      }
    }
    const counted = await inTurns([...found], async (group) => {
      const base = this.#bases.group(group)
      return { group, members: await this.#call<number>(scripts.countMembers, base) }
    })
    return counted.filter(({ members }) => members > 0)
  }

  async channels(): Promise<readonly ChannelInfo[]> {
    this.#checkOpen()
    const [rows, inboxes] = await this.#call<[(Buffer | number)[], Buffer[]]>(
      scripts.list,
      this.#bases.work,
    )
    const infos: ChannelInfo[] = []
    for (let at = 0; at < rows.length; at += 3) {
      const [channel, waiting, oldest] = rows.slice(at, at + 3)
      infos.push({
        channel: String(channel),
        waiting: Number(waiting),
        oldestExpiresAt: Number(oldest),
      })
    }
    const looks = await inTurns(inboxes.map(String), async (channel) => {
      const [waiting, oldest] = await this.#call<[number, Buffer]>(
        scripts.lookAtInbox,
        this.#bases.inbox(channel),
      )
      const now = this.limits.clock.now()
      const held = (this.#inboxes.get(channel)?.reader.arrived ?? []).filter(
        ({ kind, expiresAt }) => isMessage(kind) && expiresAt > now,
      )
      const oldestExpiresAt = held[0]?.expiresAt ?? Number(oldest)
      return { channel, waiting: waiting + held.length, oldestExpiresAt }
    })
    return [...infos, ...looks.filter(({ waiting }) => waiting > 0)]
  }

  async announce(info: ProcessInfo, leaseMs: number): Promise<void> {
    this.#checkOpen()
    const json = JSON.stringify(info)
    this.#announced.set(info.id, { json, until: this.limits.clock.now() + leaseMs })
    await this.#call(scripts.announce, this.#bases.processes, String(leaseMs), info.id, json)
  }

  async withdraw(id: string): Promise<void> {
    this.#checkOpen()
    this.#announced.delete(id)
    await this.#call(scripts.withdraw, this.#bases.processes, id)
  }

  async processes(): Promise<readonly ProcessInfo[]> {
    this.#checkOpen()
    const found = await this.#call<Buffer[]>(scripts.listProcesses, this.#bases.processes)
    return found.flatMap((json) => readProcessInfo(String(json)) ?? [])
  }

  async cleanUp(): Promise<number> {
    this.#checkOpen()
    // What those under way delete is this call's too, since they may have begun just before.
    const from = this.#deleted
    const before = this.#cleaning?.catch(() => {})
    const cleaning = (async () => {
      await before
      await this.#deleteExpired()
    })()
    this.#cleaning = cleaning
    try {
      await cleaning
    } finally {
      if (this.#cleaning === cleaning) this.#cleaning = undefined
    }
    return this.#deleted - from
  }

  async flush(): Promise<void> {
    this.#checkOpen()
    this.#announced.clear()
    const listed = await this.#call<Buffer[]>(scripts.flushWork, this.#bases.work)
    const inboxes = new Set([...listed.map(String), ...this.#inboxes.keys()])
    await inTurns([...inboxes], async (name) => {
      await this.#call(scripts.flushInbox, this.#bases.inbox(name))
      this.#inboxes.get(name)?.reader.dropMessages()
    })
    for (const start of [`${this.#bases.prefix}{g:`, this.#bases.processes]) {
      for await (const keys of this.#link.keys(start)) {
        await inTurns(keys, (key) => this.#link.unlink([key]))
      }
    }
  }

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async receiveEntries(inbox: string, options: ReceiveOptions): Promise<readonly InboxEntry[]> {
    this.#checkOpen()
    const own = this.#inboxes.get(inbox)
    if (!own) throw closedError()
    return own.reader.receive(options, (entries) => this.#liveEntries(inbox, entries))
  }

  async renewMemberships(
    inbox: string,
    held: readonly Membership[],
    expiresAt: number,
    isHeld: (membership: Membership) => boolean = () => true,
  ): Promise<void> {
    this.#checkOpen()
    const ms = String(Math.max(0, expiresAt - this.limits.clock.now()))
    const base = this.#bases.inbox(inbox)
    const own = this.#inboxes.get(inbox)
    if (own) await this.#reopenInbox(inbox)
    const unread = await this.#call<Buffer[]>(scripts.unreadChanges, base)
    const entries = [...(own?.reader.arrived ?? [])]
    for (const entry of unread) readInboxEntry(entry, entries)
    /** What it has yet to read: of each membership the last change. */
    const changes = new Map<string, string>()
    for (const { kind, target, rest } of entries) {
      if (kind === 'a' || kind === 'd') changes.set(`${inbox}${target} ${rest.toString()}`, kind)
    }
    const live = held.filter(({ group, channel }) => changes.get(`${channel} ${group}`) !== 'd')
    await this.#forGroups(live, async (group, channels, name) => {
      const still = channels.filter((channel) => isHeld({ group: name, channel }))
      if (still.length > 0) await this.#call(scripts.record, group, ms, ...still)
    })
    const groups = [...new Set(live.map(({ group }) => group))]
    for (let done = 0; done < groups.length; done += recordBatch) {
      const some = groups.slice(done, done + recordBatch)
      await this.#call(scripts.noteGroups, base, ms, ...some)
    }
  }

  async dropMemberships(memberships: readonly Membership[]): Promise<void> {
    this.#checkOpen()
    await this.#forGroups(memberships, (base, channels) =>
      this.#call(scripts.drop, base, ...channels),
    )
  }

  async closeInbox(inbox: string): Promise<void> {
    if (!this.#inboxes.delete(inbox)) return
    this.#link.unsubscribe(`${this.#bases.inbox(inbox)}in`)
    await this.#removeInbox(inbox)
    await this.#call(scripts.forgetInbox, this.#bases.work, inbox)
  }

  async #close(): Promise<void> {
    this.#isClosed = true
    this.#stopMaintenance?.()
    this.#looks.stop()
    this.#reader.failAll(closedError())
    for (const { reader } of this.#inboxes.values()) reader.fail(closedError())
    try {
      await Promise.all([...this.#inboxes.keys()].map((inbox) => this.closeInbox(inbox)))
      await this.#reader.settled()
      // What was handed to a receive that has ended may be on its way.
      await this.#link.heard()
      await this.#reader.settled()
      await this.#work.drained()
      await this.#later.drained()
      for (const queue of this.#pushes.values()) await queue.drained()
    } catch {
      // The server is away: the leases of the inboxes run out.
    }
    await this.#link.close()
  }

  async #deleteExpired(): Promise<void> {
    const before = this.counters.get('dropped.expired')
    while ((await this.#release()).due === mostPerLook);
    const late = this.counters.get('dropped.expired') - before
    let count = 0
    for (let isMore = true; isMore; ) {
      const [, expired, dead] = await this.#call<[Buffer, number, Buffer[]]>(
        scripts.cleanUp,
        this.#bases.work,
        this.#link.publish,
      )
      count += expired
      isMore = dead.length === mostDead
      const lapsed = dead.map(String).filter((name) => !this.#inboxes.has(name))
      const counts = await inTurns(lapsed, (name) => this.#removeInbox(name))
      for (const each of counts) count += each
    }
    for (const name of this.#inboxes.keys()) {
      const base = this.#bases.inbox(name)
      const [, gone] = await this.#call<[Buffer, number]>(scripts.cleanInbox, base)
      count += gone
    }
    this.#count('dropped.expired', count)
    this.#deleted += count + late
  }

  /** Removes an inbox and the memberships of its channels; returns what lay in it. */
  async #removeInbox(name: string): Promise<number> {
    const base = this.#bases.inbox(name)
    const [count, groups] = await this.#call<[number, Buffer[]]>(scripts.closeInbox, base)
    await inTurns(groups.map(String), (group) =>
      this.#call(scripts.dropInbox, this.#bases.group(group), name),
    )
    return count
  }

  /**
   * @param publish - tells its reader, behind what was handed over, what that should be.
   * @returns whether the server knew it.
   */
  async #openInbox(name: string, publish = ''): Promise<boolean> {
    const base = this.#bases.inbox(name)
    const lease = String(this.#inboxLeaseMs)
    return (await this.#call<number>(scripts.openInbox, base, lease, publish)) === 1
  }

  async #reopenInbox(name: string, publish = ''): Promise<void> {
    if (!(await this.#openInbox(name, publish))) this.#losses++
  }

  async #noteInboxes(names: readonly string[]): Promise<void> {
    const lease = String(this.#inboxLeaseMs)
    await this.#call(scripts.noteInboxes, this.#bases.work, lease, ...names)
  }

  /** There is a connection anew: what was published meanwhile is lost, and perhaps everything. */
  #onUp(): void {
    this.#reader.wakeAll()
    if (this.#inboxes.size + this.#announced.size === 0) return
    this.#startHealing()
  }

  #startHealing(): void {
    this.#mustHealAgain = true
    this.#healing ??= (async () => {
      while (this.#mustHealAgain && !this.#isClosed) {
        this.#mustHealAgain = false
        try {
          await this.#heal()
        } catch {
          // The server is away again: its return, or the next maintenance, takes it up.
        }
      }
      this.#healing = undefined
    })()
  }

  /** Opens this process's inboxes again where the server lost them, and what was theirs. */
  async #heal(): Promise<void> {
    for (const [name, { reader }] of this.#inboxes) {
      await this.#reopenInbox(name, this.#link.publish)
      reader.look()
    }
    const losses = this.#losses
    if (this.#healed === losses) return
    await this.#noteInboxes([...this.#inboxes.keys()])
    const now = this.limits.clock.now()
    for (const [id, { json, until }] of this.#announced) {
      if (until <= now) continue
      const lease = String(Math.ceil(until - now))
      await this.#call(scripts.announce, this.#bases.processes, lease, id, json)
    }
    for (const { inbox } of this.#inboxes.values()) {
      if (inbox.keepsMembers && inbox.membershipCount > 0) await inbox.renew()
    }
    this.#healed = losses
  }

  #listen(): Promise<void> {
    this.#listening ??= this.#link
      .subscribe(`${this.#bases.work}wake:${this.#process}`, (waiter) => {
        const end = waiter.indexOf(0x20)
        const text = waiter.toString('latin1', 0, end === -1 ? waiter.length : end)
        const slot = Number(text.slice(text.indexOf('/') + 1))
        if (end === -1) {
          this.#reader.wake(slot)
          return
        }
        const channelEnd = waiter.indexOf(0x20, end + 1)
        const channel = waiter.toString('latin1', end + 1, channelEnd)
        const entries = unpack(waiter, channelEnd + 1).map(({ entry }) => entry)
        this.#reader.handOver(slot, { channel, entries })
      })
      .catch((error) => {
        this.#listening = undefined
        throw error
      })
    return this.#listening
  }

  async #claim(
    channels: readonly string[],
    { lines, hold }: ReceiveOptions,
    max: number,
    slot: number,
    waits: boolean,
    isRegistered: boolean,
  ): Promise<Claimed> {
    const ofLines = lines ? channels.filter((channel) => lines.channels.includes(channel)) : []
    const plain = lines ? channels.filter((channel) => !lines.channels.includes(channel)) : channels
    // A random start: with a turn kept across calls, two callers could step past each other for ever.
    const turn = plain.length > 1 ? Math.floor(Math.random() * plain.length) : 0
    const turned = turn === 0 ? plain : [...plain.slice(turn), ...plain.slice(0, turn)]
    const token = ofLines.length > 0 || hold ? this.#tokenStart() : ''
    const waiter = `${this.#process}/${slot}`
    const order = {
      c: turned,
      m: max,
      ...this.#deadline(),
      ...(waits && { w: waiter }),
      ...(isRegistered && { r: waiter }),
      ...(lines &&
        ofLines.length > 0 && {
          l: {
            c: ofLines,
            ...(lines.elsewhere && lines.elsewhere.length > 0 && { e: lines.elsewhere }),
            lease: lines.leaseMs,
            t: token,
            // Rounded up or down at random, or a batch of one would always be of the same kind.
            share: Math.floor((max * ofLines.length) / channels.length + Math.random()),
          },
        }),
      ...holdOrder(hold, token),
      u: this.#link.publish,
    }
    const [now, expired, lapsed, packed, raw, wasWoken] = await this.#call<
      [Buffer, number, number, Buffer, (number | Buffer)[]?, 1?]
    >(
      ofLines.length > 0 || hold ? scripts.claimLines : scripts.claim,
      this.#bases.work,
      JSON.stringify(order),
    )
    this.#count('dropped.expired', expired)
    this.#count('lapsed', lapsed)
    const names = ofLines.length > 0 ? [...turned, ...ofLines] : turned
    const expiresAt = Number(now) + (lines?.leaseMs ?? 0)
    const marks = { token, turnExpiresAt: expiresAt, ...holdMarks(Number(now), hold) }
    const claimed = this.#messages(packed, raw ?? noEntries, names, Number(now), marks)
    if (wasWoken) await this.#link.heard()
    return { ...claimed, wasWoken: wasWoken === 1 }
  }

  /**
   * @param packed - entries by lines.
   * @param raw - others, behind the place of their channel in `channels`, from 1.
   */
  #messages(
    packed: Buffer,
    raw: readonly (number | Buffer)[],
    channels: readonly string[],
    now: number,
    marks: Marks,
  ): Omit<Claimed, 'wasWoken'> {
    const messages: IncomingMessage[] = []
    const found: WorkEntry[] = []
    let count = 0
    for (const { index, hasTurn, entry } of unpack(packed)) {
      found.length = 0
      readWorkEntry(entry, found)
      count += this.#add(messages, found, channels[index - 1] as string, hasTurn, now, marks)
    }
    let channel = ''
    for (const entry of raw) {
      if (typeof entry === 'number') {
        channel = channels[entry - 1] as string
        continue
      }
      found.length = 0
      readWorkEntry(entry, found)
      count += this.#add(messages, found, channel, false, now, marks)
    }
    this.#count('received', messages.length)
    return { messages, isShort: messages.length < count }
  }

  #readHanded(handed: HandedOver): readonly IncomingMessage[] {
    const messages = this.#openHanded(handed)
    this.#count('received', messages.length)
    return messages
  }

  #openHanded({ channel, entries }: HandedOver): readonly IncomingMessage[] {
    const messages: IncomingMessage[] = []
    const found: WorkEntry[] = []
    for (const entry of entries) readWorkEntry(entry, found)
    this.#add(messages, found, channel, false, this.limits.clock.now(), noMarks)
    return messages
  }

  /** Adds messages of one channel, but for those that have expired or are damaged; returns how many there were. */
  #add(
    messages: IncomingMessage[],
    found: readonly WorkEntry[],
    channel: string,
    hasTurn: boolean,
    now: number,
    { token, turnExpiresAt, held, holdExpiresAt }: Marks,
  ): number {
    const isHeld = held?.includes(channel) ?? false
    let expired = 0
    for (const { id, expiresAt, attempts, line, encoded } of found) {
      if (expiresAt <= now) {
        expired++
        continue
      }
      const turn =
        hasTurn && line !== undefined
          ? { line, token: token + id, expiresAt: turnExpiresAt }
          : undefined
      const hold = isHeld ? { token: token + id, expiresAt: holdExpiresAt } : undefined
      const content = this.#codec.decode(encoded, `c:${channel}`)
      if (!content) {
        if (turn) this.#passOver(turn)
        if (hold) this.#drop({ channel, hold })
        continue
      }
      if (turn || hold) {
        const marks = { ...(turn && { turn }), ...(hold && { hold }) }
        messages.push({ id, channel, content, expiresAt, attempts, ...marks })
      } else messages.push({ id, channel, content, expiresAt, attempts })
    }
    this.#count('dropped.expired', expired)
    return found.length
  }

  /** Lets a line go on behind a damaged message. */
  #passOver(turn: LineTurn): void {
    this.advanceLines([turn], { channels: [], leaseMs: 1 }).catch(() => {
      // The server is away: the turn lapses.
    })
  }

  /** Ends the hold of a damaged message. */
  #drop(message: HeldMessage): void {
    this.settle([{ message }]).catch(() => {
      // The server is away: it comes again.
    })
  }

  #liveEntries(inbox: string, entries: readonly RawInboxEntry[]): readonly InboxEntry[] {
    const live: InboxEntry[] = []
    const now = this.limits.clock.now()
    let expired = 0
    for (const { kind, expiresAt, target, rest } of entries) {
      if (isMessage(kind)) {
        if (expiresAt <= now) {
          expired++
          continue
        }
        const place: SealPlace = kind === 'g' ? `g:${target}` : `c:${inbox}${target}`
        const content = this.#codec.decode(rest, place)
        if (!content) continue
        if (kind === 'g') live.push({ kind: 'group', group: target, content })
        else live.push({ kind: 'message', channel: inbox + target, content })
      } else {
        const [group, channel] = [rest.toString(), inbox + target]
        if (kind === 'a') live.push({ kind: 'add', group, channel, expiresAt })
        else live.push({ kind: 'discard', group, channel })
      }
    }
    this.#count('dropped.expired', expired)
    return live
  }

  /** What `settle` is given of a message that comes in the place of another. */
  #nextArguments(next: OutgoingMessage): readonly (string | Buffer)[] {
    const { channel, content, deliverAt, attempts = 0 } = next
    const fault = workChannelNameFault(channel)
    if (fault) throw fault
    laterOf(next, this.limits)
    const from = deliverAt ?? this.limits.clock.now()
    const { expiresAt = from + this.limits.expiryMs } = next
    checkNumber('expiresAt', expiresAt)
    checkNumber('attempts', attempts)
    // It was let in once; a smaller limit of this process must not lose it.
    const encoded = this.#codec.encode(content, Number.POSITIVE_INFINITY, `c:${channel}`)
    const body = withLength(lineOf(content), encoded, `${digits(expiresAt)}:${attempts}:`)
    const at = deliverAt === undefined ? '' : String(Math.round(deliverAt))
    return [channel, String(this.limits.capacityOf(channel)), at, body]
  }

  #newEntry(message: OutgoingMessage): NewEntry {
    const { channel, content, expiresAt, attempts = 0 } = message
    const fault = channelNameFault(channel)
    if (fault) throw fault
    const encoded = this.#codec.encode(content, this.limits.maxContentBytes, `c:${channel}`)
    if (expiresAt !== undefined) checkNumber('expiresAt', expiresAt)
    checkNumber('attempts', attempts)
    if (isReplyChannel(channel)) {
      laterOf(message, this.limits)
      const local = channel.slice(inboxOf(channel).length)
      const entry: NewInboxEntry = { kind: 'm', body: withLength(local, encoded), expiresAt }
      return entry
    }
    const line = lineOf(content)
    const later = laterOf(message, this.limits)
    const entry: NewWorkEntry | NewLaterEntry = later
      ? { channel, body: withLength(line, encoded, `${attempts}:`), later }
      : { channel, body: encoded, attempts, line, expiresAt }
    return entry
  }

  async #putOff(
    entries: readonly NewLaterEntry[],
    mark: BatchMark | undefined,
  ): Promise<readonly Outcome[]> {
    const outcomes = await this.#later.add(entries, mark)
    for (const { later } of entries) this.#looks.by(later.deliverAt)
    return outcomes
  }

  async #storeLater(
    entries: readonly NewLaterEntry[],
    { sender, number, part }: { sender: string; number: number; part: number },
  ): Promise<string> {
    const channels = [...new Set(entries.map(({ channel }) => channel))]
    const order = {
      // A name of its own, since the rest of a batch goes by another script.
      s: `${sender}.later`,
      n: number,
      p: part,
      ...this.#deadline(),
      c: channels,
      o: entries.map(({ channel }) => channels.indexOf(channel) + 1),
      i: entries.map(({ later }) => later.id),
      v: entries.map(({ later }) => later.deliverAt),
      e: entries.map(({ later }) => Number(digits(later.expiresAt))),
      w: entries.map(({ later }) => (later.once ? 'o' : 'd')).join(''),
      k: this.limits.delayedCapacity,
    }
    const [, , account] = await this.#call<[Buffer, number, Buffer]>(
      scripts.putOff,
      this.#bases.work,
      JSON.stringify(order),
      ...entries.map(({ body }) => body),
    )
    return account.toString('latin1')
  }

  async #storeWork(
    entries: readonly NewWorkEntry[],
    { sender, number, part }: { sender: string; number: number; part: number },
  ): Promise<string> {
    const names = new Map<string, number>()
    const places: number[] = []
    for (const { channel } of entries) {
      let place = names.get(channel)
      if (place === undefined) {
        place = names.size + 1
        names.set(channel, place)
      }
      places.push(place)
    }
    const channels = [...names.keys()]
    const order = {
      s: sender,
      n: number,
      p: part,
      ...this.#deadline(),
      c: channels,
      k: channels.map((channel) => this.limits.capacityOf(channel)),
      x: this.limits.expiryMs,
      l: this.limits.lineCapacity,
      u: this.#link.publish,
      ...(this.#link.handsOver && { h: 1 }),
    }
    const isUsual = entries.length > 1 && entries.every(({ expiresAt }) => expiresAt === undefined)
    if (isUsual && !this.#areSingle(channels)) {
      const { args, counts, firsts } = makeWorkBlocks(entries)
      const o = firsts.map((first) => places[first])
      const account = await this.#callSend(
        { ...order, b: counts, ...(channels.length > 1 && { o }) },
        args,
      )
      if (account !== 'b' && account !== 's') return account
      if (account === 's') this.#noteSingle(channels)
    }
    return this.#callSend(
      { ...order, ...(channels.length > 1 && { o: places }), ...expiriesOf(entries) },
      entries.map(({ body, attempts, line }) => withLength(line, body, `${attempts}:`)),
    )
  }

  async #callSend(order: object, args: readonly (string | Buffer)[]): Promise<string> {
    const [, expired, account] = await this.#call<[Buffer, number, Buffer]>(
      scripts.send,
      this.#bases.work,
      JSON.stringify(order),
      ...args,
    )
    this.#count('dropped.expired', expired)
    return account.toString('latin1')
  }

  #areSingle(channels: readonly string[]): boolean {
    if (this.#singles.size === 0) return false
    const now = performance.now()
    return channels.some((channel) => (this.#singles.get(channel) ?? 0) > now)
  }

  #noteSingle(channels: readonly string[]): void {
    const until = performance.now() + singleMs
    if (this.#singles.size > mostSingles) this.#singles.clear()
    for (const channel of channels) this.#singles.set(channel, until)
  }

  #push(
    inbox: string,
    entries: readonly NewInboxEntry[],
    mark?: BatchMark,
  ): Promise<readonly Outcome[]> {
    let queue = this.#pushes.get(inbox)
    if (!queue) {
      queue = new BatchQueue<NewInboxEntry>(
        this.#nextBatch,
        (batch, id) => this.#storePush(inbox, batch, id),
        () => this.#pushes.delete(inbox),
      )
      this.#pushes.set(inbox, queue)
    }
    return queue.add(entries, mark)
  }

  async #storePush(
    inbox: string,
    entries: readonly NewInboxEntry[],
    { sender, number, part }: { sender: string; number: number; part: number },
  ): Promise<string> {
    const isBlock = entries.length > 1 && entries.every(isUsual)
    const order = {
      s: sender,
      n: number,
      p: part,
      ...this.#deadline(),
      x: this.limits.expiryMs,
      g: this.limits.groupExpiryMs,
      k: this.limits.inboxCapacity,
      u: this.#link.publish,
    }
    if (isBlock) {
      const account = await this.#callPush(inbox, { ...order, m: entries.length }, [
        makeBlock(entries),
      ])
      // There is no room for all of it, so that it is divided.
      if (account !== 'b') return account
    }
    const kinds = entries.map(({ kind }) => kind).join('')
    return this.#callPush(
      inbox,
      { ...order, t: kinds, ...expiriesOf(entries) },
      entries.map(({ body }) => body),
    )
  }

  async #callPush(
    inbox: string,
    order: object,
    args: readonly (string | Buffer)[],
  ): Promise<string> {
    const [, expired, account] = await this.#call<[Buffer, number, Buffer]>(
      scripts.push,
      this.#bases.inbox(inbox),
      JSON.stringify(order),
      ...args,
    )
    this.#count('dropped.expired', expired)
    return account.toString('latin1')
  }

  /** Tells inboxes of changes of membership; returns those that are not open. */
  async #tellInboxes(
    memberships: readonly Membership[],
    kind: 'a' | 'd',
  ): Promise<ReadonlySet<string>> {
    const byInbox = new Map<string, NewInboxEntry[]>()
    for (const { group, channel } of memberships) {
      if (!isReplyChannel(channel)) continue
      const inbox = inboxOf(channel)
      const entry = { kind, body: withLength(channel.slice(inbox.length), group) }
      const list = byInbox.get(inbox)
      if (list) list.push(entry)
      else byInbox.set(inbox, [entry])
    }
    const gone = new Set<string>()
    await Promise.all(
      [...byInbox].map(async ([inbox, entries]) => {
        const outcomes = await this.#push(inbox, entries)
        if (outcomes.includes('gone')) gone.add(inbox)
      }),
    )
    return gone
  }

  /** Runs `work` for each group, with its members, a bounded number at a time. */
  async #forGroups(
    memberships: readonly Membership[],
    work: (base: string, channels: readonly string[], group: string) => Promise<unknown>,
  ): Promise<void> {
    const byGroup = new Map<string, string[]>()
    for (const { group, channel } of memberships) {
      const list = byGroup.get(group)
      if (list) list.push(channel)
      else byGroup.set(group, [channel])
    }
    await inTurns([...byGroup], async ([group, channels]) => {
      for (let done = 0; done < channels.length; done += recordBatch) {
        await work(this.#bases.group(group), channels.slice(done, done + recordBatch), group)
      }
    })
  }

  /** One group's messages after the other's, so that their order is that of the calls. */
  async #sendToGroup(group: string, list: readonly Encoded[]): Promise<void> {
    const before = this.#groupSends.get(group)
    const sending = (async () => {
      await before?.catch(() => {})
      const found = await this.#call<Buffer[]>(scripts.receivers, this.#bases.group(group))
      const forInboxes = list.map((encoded) => this.#codec.seal(encoded, `g:${group}`))
      await Promise.all(
        found.map(async (receiver) => {
          const name = receiver.toString()
          const outcomes = isReplyChannel(name)
            ? await this.#push(
                name,
                forInboxes.map((encoded) => ({ kind: 'g', body: withLength(group, encoded) })),
              )
            : await this.#work.add(
                list.map((encoded) => ({
                  channel: name,
                  body: this.#codec.seal(encoded, `c:${name}`),
                  attempts: 0,
                  line: undefined,
                })),
              )
          this.#countDrops(outcomes)
        }),
      )
    })()
    this.#groupSends.set(group, sending)
    try {
      await sending
    } finally {
      if (this.#groupSends.get(group) === sending) this.#groupSends.delete(group)
    }
  }

  /** A line is looked at so often when its ready head may have been taken by others. */
  #lookForLapsed(leaseMs: number): void {
    this.#lookForLapsedMs = Math.min(this.#lookForLapsedMs, leaseMs)
    this.#looks.atLeastEvery(leaseMs)
  }

  /**
   * Lets lines go on whose turn has lapsed, and puts what is due on its channel; returns when there is
   * more to do. A turn that is given meanwhile lasts longer than until the next look.
   */
  async #look(): Promise<number> {
    if (this.#isClosed) return Number.POSITIVE_INFINITY
    return (await this.#release()).nextAt
  }

  async #release(): Promise<{ readonly due: number; readonly nextAt: number }> {
    const order = {
      lease: Math.min(this.#lookForLapsedMs, longestLookMs),
      x: this.limits.expiryMs,
      m: mostPerLook,
      u: this.#link.publish,
    }
    const [, expired, lapsed, redelivered, due, next] = await this.#call<
      [Buffer, number, number, number, number, Buffer]
    >(scripts.release, this.#bases.work, JSON.stringify(order))
    this.#count('dropped.expired', expired)
    this.#count('lapsed', lapsed)
    this.#count('redelivered', redelivered)
    return { due, nextAt: next.length > 0 ? Number(next) : Number.POSITIVE_INFINITY }
  }

  /** From the first thing stored on: renews the inboxes' leases and deletes what has expired. */
  #startMaintenance(): void {
    if (this.#isClosed) return
    const { clock, expiryMs, groupExpiryMs } = this.limits
    this.#stopMaintenance ??= repeat(
      clock,
      () => {
        this.#maintain().catch(() => {
          // The server is away: the next time will do.
        })
      },
      maintenanceShare * Math.min(expiryMs, groupExpiryMs),
    )
  }

  async #maintain(): Promise<void> {
    for (const name of this.#inboxes.keys()) await this.#reopenInbox(name)
    if (this.#inboxes.size > 0) await this.#noteInboxes([...this.#inboxes.keys()])
    if (this.#healed < this.#losses) this.#startHealing()
    if (!this.#isClosed) await this.cleanUp()
  }

  #tokenStart(): string {
    this.#lastClaim++
    return `${this.#process}.${this.#lastClaim}.`
  }

  /** What a lost reply had taken is lost; what it had stored is not stored again. */
  #call<Reply>(
    script: Script,
    base: string,
    ...args: readonly (string | Buffer)[]
  ): Promise<Reply> {
    return this.#link.call<Reply>(script, base, [this.#now(), ...args])
  }

  /** From when on a call is not to be carried out, should it lie in a connection until then. */
  #deadline(): { readonly d?: number } {
    return this.#ownClock ? { d: this.limits.clock.now() + this.#link.timeoutMs } : {}
  }

  #now(): string {
    return this.#ownClock ? '' : String(this.limits.clock.now())
  }

  #fullError(channel: string): ChannelkitError {
    const isReply = isReplyChannel(channel)
    const name = isReply ? inboxOf(channel) : channel
    const capacity = isReply ? this.limits.inboxCapacity : this.limits.capacityOf(channel)
    return new ChannelkitError(
      'ERR_CHANNEL_FULL',
      `channel ${name} holds its capacity of ${capacity} messages; start more workers or raise its capacity`,
    )
  }

  #countDrops(outcomes: readonly Outcome[]): void {
    let full = 0
    let gone = 0
    for (const outcome of outcomes) {
      if (outcome === 'full' || outcome === 'line-full') full++
      else if (outcome === 'gone') gone++
    }
    this.#count('dropped.full', full)
    this.#count('dropped.gone', gone)
  }

  #count(name: string, by: number): void {
    if (by > 0) this.counters.add(name, by)
  }

  #checkOpen(): void {
    if (this.#isClosed) throw closedError()
  }
}

/** What is put on the messages of a call, beside what lies in their entries. */
interface Marks {
  /** Start of the tokens of turns and holds. */
  readonly token: string
  readonly turnExpiresAt: number
  /** The channels whose messages are held. */
  readonly held: readonly string[] | undefined
  readonly holdExpiresAt: number
}

const noMarks: Marks = Object.freeze({
  token: '',
  turnExpiresAt: 0,
  held: undefined,
  holdExpiresAt: 0,
})

function holdMarks(
  now: number,
  hold: HoldOptions | undefined,
): Omit<Marks, 'token' | 'turnExpiresAt'> {
  return { held: hold?.channels, holdExpiresAt: now + (hold?.leaseMs ?? 0) }
}

function holdOrder(hold: HoldOptions | undefined, token: string): object {
  return hold ? { h: { c: hold.channels, lease: hold.leaseMs, t: token } } : {}
}

const settleOutcomes: Readonly<Record<string, SettleOutcome>> = {
  s: 'settled',
  l: 'lost',
  f: 'full',
}

const late = Buffer.from('late')

function checkInTime(account: Buffer): void {
  if (account.toString('latin1') !== 'late') return
  throw new ChannelkitError(
    'ERR_BACKEND_UNAVAILABLE',
    'a call came too late, after others of its process; nothing was done',
  )
}

// Stands for an inbox among the targets of a batch; none has such a name.
const forLater = '@later'

/** The inbox of a reply channel, or '' for a work channel. */
function targetOf(channel: string): string {
  return isReplyChannel(channel) ? inboxOf(channel) : ''
}

/** Runs `work` on each item, a bounded number at a time. */
async function inTurns<Item, Result>(
  items: readonly Item[],
  work: (item: Item) => Promise<Result>,
): Promise<Result[]> {
  const results: Result[] = []
  for (let done = 0; done < items.length; done += mostCalls) {
    results.push(...(await Promise.all(items.slice(done, done + mostCalls).map(work))))
  }
  return results
}

function expiriesOf(entries: readonly NewEntry[]): { readonly e?: Record<string, number> } {
  let expiries: Record<string, number> | undefined
  for (const [index, { expiresAt }] of entries.entries()) {
    if (expiresAt === undefined) continue
    expiries ??= {}
    expiries[index + 1] = Math.min(Math.max(0, Math.round(expiresAt)), latest)
  }
  return expiries ? { e: expiries } : {}
}

// What 16 digits hold, and a script's numbers exactly.
const latest = 8_999_999_999_999_999

function digits(expiresAt: number): string {
  return String(Math.min(Math.max(0, Math.round(expiresAt)), latest)).padStart(16, '0')
}

function lineOf({ reply_channel: line }: Content): string | undefined {
  return typeof line === 'string' ? line : undefined
}
