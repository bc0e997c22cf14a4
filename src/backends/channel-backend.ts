import type { Content } from '../content.ts'
import type { ChannelkitError } from '../errors.ts'
import type { Clock } from '../internal/clock.ts'
import type { Counters } from '../internal/counters.ts'
import type { CapacityRules } from './capacity.ts'

/** Limits and clock of a backend; the same for every process of a site. */
export interface BackendOptions {
  /** Most live messages a work channel holds; 1 or more. Default 1,000. */
  readonly capacity?: number
  /**
   * Capacities of single channels: the first rule whose glob (`*` stands for any run of characters)
   * or regular expression matches the whole name wins, else `capacity`.
   */
  readonly channelCapacity?: CapacityRules
  /** Most waiting entries of one interface server's inbox; 1 or more. Default 10,000. */
  readonly inboxCapacity?: number
  /**
   * Most messages of one line that are parked on one channel; 1 or more. Default 100. So a client
   * that floods its own line leaves the others room.
   */
  readonly lineCapacity?: number
  /** Most messages for one channel whose time has not come; 1 or more. Default 10,000. */
  readonly delayedCapacity?: number
  /** How long an unread message lives, in milliseconds. Default 60,000. */
  readonly expiryMs?: number
  /** How long a group membership lives unless renewed, in milliseconds. Default 60,000. */
  readonly groupExpiryMs?: number
  /** Largest encoded content, in bytes. Default 1,048,576. */
  readonly maxContentBytes?: number
  /** Where time comes from. Default the machine's clock. */
  readonly clock?: Clock
}

/** {@link BackendOptions} with every default filled in. */
export interface BackendLimits {
  readonly capacity: number
  readonly capacityOf: (channel: string) => number
  readonly inboxCapacity: number
  readonly lineCapacity: number
  readonly delayedCapacity: number
  readonly expiryMs: number
  readonly groupExpiryMs: number
  readonly maxContentBytes: number
  readonly clock: Clock
}

/** What differs between backends in kind, declared by the backend itself and frozen. */
export interface BackendSupport {
  /** Whether processes other than the one that opened it can take part. */
  readonly multipleProcesses: boolean
}

/** One message on its way in. */
export interface OutgoingMessage {
  /** A work channel, or a reply channel `inbox!local`. */
  readonly channel: string
  readonly content: Content
  /** Time of expiry in milliseconds since the epoch. Default now, or `deliverAt`, + `expiryMs`. */
  readonly expiresAt?: number
  /** How often a consumer has already run on it and asked for another try. Default 0. */
  readonly attempts?: number
  /**
   * When it is put at the end of its channel, in milliseconds since the epoch, at most 366 days from
   * now (D1). Work channels alone. Default at once.
   */
  readonly deliverAt?: number
  /**
   * With `deliverAt`: what `cancel` calls it by, 1-200 of `A-Z a-z 0-9 . _ -`. While a message of
   * this name waits for its time on the channel, another one is not stored (D4). Default a random one.
   */
  readonly id?: string
  /** With `id`: another one is not stored until an hour after its time either (D4). Default false. */
  readonly once?: boolean
  /**
   * Promises that nobody touches `content` again, so that a backend may keep it as it is instead of
   * copying it. Default false.
   */
  readonly handsOver?: boolean
}

/**
 * Tells a batch from the others of its sender, so that one which failed with
 * `ERR_BACKEND_UNAVAILABLE`, and may be stored or not, can be sent again.
 */
export interface BatchMark {
  /** 1-200 of `A-Z a-z 0-9 . _ -`; a name that nobody else uses. */
  readonly sender: string
  /** A whole number, higher for each further batch of the sender. */
  readonly number: number
}

/** How a batch is sent. */
export interface SendOptions {
  /**
   * With the same mark the same batch may be sent again within a minute, and is stored once (C22).
   * One sender has one batch under way at a time. Default: none.
   */
  readonly mark?: BatchMark
}

/** A message that was not stored, by its place in the batch, and why. */
export interface SendFailure {
  readonly index: number
  /**
   * `ERR_INVALID_NAME`, `ERR_INVALID_CONTENT`, `ERR_CONTENT_TOO_LARGE` or `ERR_CHANNEL_FULL`.
   */
  readonly error: ChannelkitError
}

/** One message taken from a work channel. It has left the store. */
export interface IncomingMessage {
  /** The backend's own mark of the message's place in its channel; only `handBack` reads it. */
  readonly id: number | string
  readonly channel: string
  /** A fresh object that belongs to the receiver. */
  readonly content: Content
  /** Time of expiry in milliseconds since the epoch. */
  readonly expiresAt: number
  readonly attempts: number
  /** The turn of its line that came with it, where its channel was received by lines. */
  readonly turn?: LineTurn
  /** That the store keeps it until it is settled, where its channel was received so. */
  readonly hold?: MessageHold
}

/** That a message which was taken stays in the store, and is given again unless it is settled. */
export interface MessageHold {
  /** Tells it from every other hold. */
  readonly token: string
  /** When it lapses unless renewed, in milliseconds since the epoch by the backend's clock. */
  readonly expiresAt: number
}

/** Which messages stay in the store until they are settled (A1). */
export interface HoldOptions {
  /** Those of the received channels whose messages are held. */
  readonly channels: readonly string[]
  /** How long a hold lasts unless renewed, in milliseconds. */
  readonly leaseMs: number
}

/** A message that was taken with a hold. */
export interface HeldMessage {
  readonly channel: string
  readonly hold: MessageHold
}

/** The end of a hold. */
export interface Settlement {
  readonly message: HeldMessage
  /**
   * What is stored in its place, in the same step (A4): without, the message is done with. One for a
   * later time finds room always.
   */
  readonly next?: Omit<OutgoingMessage, 'id' | 'once'>
}

/**
 * `settled`; `lost` when the hold had lapsed, and nothing was done; `full` when there was no room for
 * `next`, and the hold goes on.
 */
export type SettleOutcome = 'settled' | 'lost' | 'full'

/**
 * The right to run one message of a line: nobody is given another message of that line until the
 * turn has been passed on by `advanceLines`, or has lapsed.
 */
export interface LineTurn {
  /** The reply channel whose messages wait in this line. */
  readonly line: string
  /** Tells this turn from every other one of the line. */
  readonly token: string
  /** When it lapses unless renewed, in milliseconds since the epoch by the backend's clock. */
  readonly expiresAt: number
}

/** Which messages are taken by lines, one at a time for each reply channel. */
export interface LineOptions {
  /** Those of the received channels whose messages with a `reply_channel` go through its line. */
  readonly channels: readonly string[]
  /**
   * Further channels of the same lines, which others receive: what waits there keeps its place in
   * front of what came later (L7). Default none.
   */
  readonly elsewhere?: readonly string[]
  /** How long a turn lasts unless renewed, in milliseconds. */
  readonly leaseMs: number
}

/** What whoever passes turns on can run next. */
export interface AdvanceOptions {
  /** The channels it consumes; with none, the lines go on elsewhere. */
  readonly channels: readonly string[]
  /** How long the next turns last unless renewed, in milliseconds. */
  readonly leaseMs: number
  /** Holds the next messages that come on some channels (A7). */
  readonly hold?: HoldOptions
}

/** How many messages to take and how long to wait for the first. */
export interface ReceiveOptions {
  /** Most messages to take, 1 or more. */
  readonly max: number
  /** Longest wait for the first message in milliseconds; 0 asks once, Infinity waits for ever. */
  readonly waitMs: number
  /** Ends the wait with its own reason; no message is lost by it (C8, R12). */
  readonly signal?: AbortSignal
  /** Takes the messages of some channels by lines (L1). Only `receive` of work channels reads it. */
  readonly lines?: LineOptions
  /** Keeps the messages of some channels until they are settled (A1). Only `receive` reads it. */
  readonly hold?: HoldOptions
}

/** What became of turns that were passed on. */
export interface AdvancedLines {
  /** The next message of each line that had one for this caller, with its turn. */
  readonly messages: readonly IncomingMessage[]
  /** The turns that were not the caller's any more: they had lapsed. Nothing was done for them. */
  readonly lost: readonly LineTurn[]
}

/** That `channel` is in `group`. */
export interface Membership {
  readonly group: string
  /** A reply channel or a work channel. */
  readonly channel: string
}

/** A message for one client of this inbox. */
export interface DirectDelivery<Owner> {
  readonly group?: undefined
  readonly channel: string
  readonly owner: Owner
  readonly content: Content
}

/** A message for every member of a group that this inbox holds. */
export interface GroupDelivery<Owner> {
  readonly group: string
  /** The members' owners, each once. Valid until the next call on the inbox; do not keep it. */
  readonly owners: readonly Owner[]
  /** One object for all of them; not to be changed. */
  readonly content: Content
}

export type Delivery<Owner> = DirectDelivery<Owner> | GroupDelivery<Owner>

/** How an inbox is opened. */
export interface InboxOptions {
  /**
   * Who keeps memberships alive. With `auto` the inbox does: one lasts as long as its channel, and
   * each `renew` records all of them again, however late it comes. With `manual` it ends
   * `groupExpiryMs` after it was added last. Default `manual`.
   */
  readonly renewal?: 'auto' | 'manual'
}

/**
 * The one queue of an interface server, on which everything for its clients arrives in order:
 * direct messages, group messages, and the changes of its clients' memberships.
 */
export interface Inbox<Owner> {
  /** `reply.<22 random characters>!`; unique and not to be guessed. */
  readonly name: string
  /** Makes a reply channel whose messages are delivered with `owner` (R1, R2). */
  newChannel(owner: Owner): string
  /** Whose reply channel this is; undefined when it has ended, or is another inbox's. */
  ownerOf(channel: string): Owner | undefined
  /**
   * Ends a reply channel: its memberships end everywhere, and messages still on their way to it
   * are dropped and counted as `dropped.gone` (R4).
   */
  endChannel(channel: string): void
  /**
   * Takes what has arrived, oldest first; empty when nothing came in time, or only changes of
   * membership. One call at a time.
   */
  receive(options: ReceiveOptions): Promise<readonly Delivery<Owner>[]>
  /**
   * Renews every membership of this inbox's channels for `groupExpiryMs`, and records again
   * those the backend has lost (R6, R7), with `renewal: 'auto'` also those that expired (R14).
   */
  renew(): Promise<void>
  /** How many memberships its channels hold. */
  readonly membershipCount: number
  /**
   * Ends every channel of the inbox and forgets it in the backend; a waiting receive rejects with
   * `ERR_BACKEND_CLOSED` (R9).
   */
  close(): Promise<void>
}

/** What a process says of itself so that others can see what is served. */
export interface ProcessInfo {
  readonly id: string
  readonly kind: 'worker' | 'interface'
  readonly host: string
  readonly pid: number
  /** Milliseconds since the epoch. */
  readonly startedAt: number
  /** The channels it consumes; empty for an interface server. */
  readonly channels: readonly string[]
  /** Those of its channels that it consumes by lines. Default none. */
  readonly linearized?: readonly string[]
}

/** One channel with waiting messages, as `channels()` lists it. */
export interface ChannelInfo {
  readonly channel: string
  /** Live messages waiting. */
  readonly waiting: number
  /** When the oldest of them expires, in milliseconds since the epoch. */
  readonly oldestExpiresAt: number
}

/** Where a send of a transaction of the site's goes, and when. */
export type SiteSendTarget =
  | ({ readonly channel: string } & Pick<OutgoingMessage, 'deliverAt' | 'id' | 'once'>)
  | { readonly group: string }

/** One send of a transaction of the site's. */
export type SiteSend = SiteSendTarget & { readonly content: Content }

/** Runs one statement without parameters in a transaction of the site's. */
export type RunStatement = (text: string) => Promise<unknown>

/**
 * What a backend offers whose tables stand in the site's own database: sends that are part of a
 * transaction of the site's, visible when it commits and never when it does not.
 */
export interface TransactionalSends<Prepared = unknown> {
  /** Makes what is missing, before the site's transaction begins. */
  open(): Promise<void>
  /**
   * Checks and encodes a send.
   *
   * @throws {ChannelkitError} `ERR_INVALID_NAME`, `ERR_INVALID_CONTENT`, `ERR_CONTENT_TOO_LARGE`
   */
  prepare(send: SiteSend): Prepared
  /**
   * Writes sends, in order, within the site's transaction.
   *
   * @param isLast - whether the commit follows at once and {@link committed} is called then.
   * @throws {ChannelkitError} `ERR_CHANNEL_FULL`; the transaction cannot go on then. What `run`
   *   throws is passed on.
   */
  write(sends: readonly Prepared[], run: RunStatement, isLast: boolean): Promise<void>
  /** Told that a transaction with such writes was committed. */
  committed(): void
}

/**
 * Carries messages between processes, and knows groups. Numbers in brackets are clauses of
 * `docs/backend-contract.md`, each of which has a test that every backend passes.
 *
 * Calls take batches, since a broker that is asked once per message cannot be fast; a backend
 * whose calls leave the process also joins the calls of one turn of the event loop.
 * Every method rejects with `ERR_BACKEND_CLOSED` after `close` (X3) and with
 * `ERR_BACKEND_UNAVAILABLE`, in bounded time, while the service behind it is away (X4).
 */
export interface ChannelBackend {
  readonly supports: BackendSupport
  readonly limits: BackendLimits
  /**
   * `sent`, `received`, and `dropped.<reason>` for `full`, `expired` and `gone`, of this process
   * (S1, S2).
   */
  readonly counters: Counters
  /** Sends within a transaction of the site's; undefined where there is no such thing. */
  readonly transactional?: TransactionalSends

  /** Connects and creates what is missing. Other methods do it on first use. */
  open(): Promise<void>

  /**
   * Stores each message at the end of its channel, in the order of the batch (C2).
   *
   * One message's fault does not stop the others. Every content is read before the call returns,
   * so changing it afterwards changes nothing (C4).
   *
   * @returns the failures; an empty list when everything is stored.
   */
  send(messages: readonly OutgoingMessage[], options?: SendOptions): Promise<readonly SendFailure[]>

  /**
   * Takes the oldest live messages waiting on any of `channels`, dividing the batch between those
   * that have some (C5).
   *
   * At most once: a message has left the store before this resolves, so a crash of the caller
   * loses it and nobody gets it twice (C3). One that is held comes again when the caller crashes (A1).
   *
   * @param channels - 1 or more work channels; their order means nothing.
   * @returns messages of one channel in send order; empty when nothing came in time (C6).
   * @throws {ChannelkitError} `ERR_INVALID_NAME`, `ERR_INVALID_ARGUMENT`
   */
  receive(channels: readonly string[], options: ReceiveOptions): Promise<readonly IncomingMessage[]>

  /**
   * Puts messages taken but not run back where they were, with their expiry; capacity does not
   * apply (C13). One with a turn goes back to the head of its line, whose turn it gives up (L8); one
   * with a hold gives that up (A5).
   */
  handBack(messages: readonly IncomingMessage[]): Promise<void>

  /**
   * Passes turns on: the next live message of each line is the caller's when it consumes its
   * channel, else it becomes ready there for others; a line with none is free (L3, L6).
   */
  advanceLines(turns: readonly LineTurn[], options: AdvanceOptions): Promise<AdvancedLines>

  /**
   * Lets turns last `leaseMs` from now (L5).
   *
   * @returns those that are still the caller's, with their new time; the others have lapsed.
   */
  renewLines(turns: readonly LineTurn[], leaseMs: number): Promise<readonly LineTurn[]>

  /**
   * Takes back messages whose time has not come (D3).
   *
   * @param ids - as they were sent with.
   * @returns for each whether it waited, and is not delivered.
   * @throws {ChannelkitError} `ERR_INVALID_NAME`, `ERR_INVALID_ARGUMENT`
   */
  cancel(channel: string, ids: readonly string[]): Promise<readonly boolean[]>

  /** Ends holds: the messages are done with, or others take their places (A2, A4). */
  settle(settlements: readonly Settlement[]): Promise<readonly SettleOutcome[]>

  /**
   * Lets holds last `leaseMs` from now (A3).
   *
   * @returns those that are still the caller's, with their new time; the others have lapsed.
   */
  renewHolds(messages: readonly HeldMessage[], leaseMs: number): Promise<readonly HeldMessage[]>

  /** Opens a new inbox, for an interface server of this process. */
  openInbox<Owner>(options?: InboxOptions): Promise<Inbox<Owner>>

  /** Records memberships, or renews them (G1). A `groupSend` after it reaches them (G2). */
  groupAdd(memberships: readonly Membership[]): Promise<void>

  /** Ends memberships; those that are not there are passed over (G4). */
  groupDiscard(memberships: readonly Membership[]): Promise<void>

  /**
   * Gives each member of the group one copy (G3). A full member is passed over and counted as
   * `dropped.full`; it never costs another its copy (G6).
   *
   * @returns failures by the message's own fault: `ERR_INVALID_NAME`, `ERR_INVALID_CONTENT`,
   *   `ERR_CONTENT_TOO_LARGE`.
   */
  groupSend(
    messages: readonly { readonly group: string; readonly content: Content }[],
  ): Promise<readonly SendFailure[]>

  /** The live members of a group, in no order (G7). */
  groupChannels(group: string): Promise<readonly string[]>

  /** Every group with live members, and how many (S4). */
  groups(): Promise<readonly { readonly group: string; readonly members: number }[]>

  /** Every work channel and inbox with live messages waiting (S3). */
  channels(): Promise<readonly ChannelInfo[]>

  /** Tells the others of this process until `leaseMs` from now, or renews it (P1). */
  announce(info: ProcessInfo, leaseMs: number): Promise<void>

  /** Takes the announcement back (P2). */
  withdraw(id: string): Promise<void>

  /** Every process whose lease runs (P1). */
  processes(): Promise<readonly ProcessInfo[]>

  /** Deletes what has expired, wherever it lies, and says how many messages that were (C18). */
  cleanUp(): Promise<number>

  /** Removes every message, group and announcement of this site, and nothing else (X1). */
  flush(): Promise<void>

  /** Settles pending waits and lets go of every resource (X2, X5); idempotent. */
  close(): Promise<void>
}
