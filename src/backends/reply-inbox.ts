import type { Content } from '../content.ts'
import { ChannelkitError } from '../errors.ts'
import type { Counters } from '../internal/counters.ts'
import { NameTable } from '../internal/roster.ts'
import { randomName } from '../names.ts'
import type {
  BackendLimits,
  Delivery,
  DirectDelivery,
  GroupDelivery,
  Inbox,
  InboxOptions,
  Membership,
  ReceiveOptions,
} from './channel-backend.ts'

/** What stands in an inbox, in the order in which it was put there. Times are milliseconds. */
export type InboxEntry =
  | { readonly kind: 'message'; readonly channel: string; readonly content: Content }
  | { readonly kind: 'group'; readonly group: string; readonly content: Content }
  | {
      readonly kind: 'add'
      readonly group: string
      readonly channel: string
      readonly expiresAt: number
    }
  | { readonly kind: 'discard'; readonly group: string; readonly channel: string }

/** What a backend does for an inbox; everything else is the same on all of them. */
export interface InboxTransport {
  /** Takes live entries, oldest first. At most once, like a work channel's receive. */
  receiveEntries(inbox: string, options: ReceiveOptions): Promise<readonly InboxEntry[]>
  /**
   * Sets the expiry of every membership recorded for this inbox, and records those of `held`
   * that are missing, but for those of which the inbox has yet to read that they were discarded.
   *
   * @param isHeld - whether the inbox has not let go of one meanwhile; to be asked when it is recorded.
   */
  renewMemberships(
    inbox: string,
    held: readonly Membership[],
    expiresAt: number,
    isHeld?: (membership: Membership) => boolean,
  ): Promise<void>
  /** Ends memberships in the backend without telling the inbox, which knows already. */
  dropMemberships(memberships: readonly Membership[]): Promise<void>
  /** Forgets the inbox: its entries and its memberships. */
  closeInbox(inbox: string): Promise<void>
}

interface Member<Owner> {
  readonly channel: string
  readonly owner: Owner
  /** Made with the first membership: most sockets of some sites join no group. */
  groups: Set<LocalGroup<Owner>> | undefined
}

/** The members of one group that this inbox holds. */
class LocalGroup<Owner> {
  readonly name: string
  readonly expiries = new Map<Member<Owner>, number>()
  #owners: Owner[] | undefined
  /** The owners list is right until this time, when the first membership in it ends. */
  #validUntil = Number.POSITIVE_INFINITY

  constructor(name: string) {
    this.name = name
  }

  set(member: Member<Owner>, expiresAt: number): void {
    if (this.expiries.has(member)) {
      // A renewal changes no owner; the list may only be dropped too early, never too late.
    } else if (this.#owners) {
      this.#owners.push(member.owner)
      this.#validUntil = Math.min(this.#validUntil, expiresAt)
    }
    this.expiries.set(member, expiresAt)
  }

  delete(member: Member<Owner>): void {
    if (this.expiries.delete(member)) this.#owners = undefined
  }

  /** The owners whose membership runs at `now`; removes the others through `expire`. */
  owners(now: number, expire: (member: Member<Owner>) => void): readonly Owner[] {
    if (this.#owners && now < this.#validUntil) return this.#owners
    const owners: Owner[] = []
    let validUntil = Number.POSITIVE_INFINITY
    const expired: Member<Owner>[] = []
    for (const [member, expiresAt] of this.expiries) {
      if (expiresAt <= now) {
        expired.push(member)
        continue
      }
      owners.push(member.owner)
      if (expiresAt < validUntil) validUntil = expiresAt
    }
    for (const member of expired) expire(member)
    this.#owners = owners
    this.#validUntil = validUntil
    return owners
  }
}

/**
 * The inbox of one interface server: knows its clients and their groups, since every change of
 * membership passes through it in order with the group's messages. A group message therefore
 * arrives once per inbox and is given to the members found here.
 */
export class ReplyInbox<Owner> implements Inbox<Owner> {
  readonly name: string
  /** Whether memberships last as long as their channels here, whatever the clock does. */
  readonly keepsMembers: boolean
  readonly #transport: InboxTransport
  readonly #limits: BackendLimits
  readonly #counters: Counters
  readonly #members = new NameTable<Member<Owner>>()
  readonly #groups = new Map<string, LocalGroup<Owner>>()
  #membershipCount = 0
  /** Memberships that ended here and are still to be ended in the backend. */
  #toDrop: Membership[] = []
  #dropping: Promise<void> | undefined
  #isReceiving = false
  readonly #closing = new AbortController()
  #callerSignal: AbortSignal | undefined
  #joinedSignal: AbortSignal | undefined

  constructor(
    transport: InboxTransport,
    limits: BackendLimits,
    counters: Counters,
    options: InboxOptions = {},
  ) {
    this.name = `reply.${randomName()}!`
    this.#transport = transport
    this.#limits = limits
    this.#counters = counters
    this.keepsMembers = options.renewal === 'auto'
  }

  get membershipCount(): number {
    return this.#membershipCount
  }

  newChannel(owner: Owner): string {
    const channel = this.name + randomName()
    this.#members.set(channel, { channel, owner, groups: undefined })
    return channel
  }

  ownerOf(channel: string): Owner | undefined {
    return this.#members.get(channel)?.owner
  }

  endChannel(channel: string): void {
    const member = this.#members.get(channel)
    if (!member) return
    this.#members.delete(channel)
    if (!member.groups) return
    for (const group of member.groups) {
      group.delete(member)
      this.#forgetMembership(group)
      this.#toDrop.push({ group: group.name, channel })
    }
    this.#drop()
  }

  async receive(options: ReceiveOptions): Promise<readonly Delivery<Owner>[]> {
    if (this.#isReceiving) {
      throw new ChannelkitError(
        'ERR_INVALID_ARGUMENT',
        'an inbox is received on by two callers at once; await the first call',
      )
    }
    const signal = this.#untilClosed(options.signal)
    signal.throwIfAborted()
    this.#isReceiving = true
    try {
      const entries = await this.#transport.receiveEntries(this.name, { ...options, signal })
      return this.#deliver(entries)
    } finally {
      this.#isReceiving = false
    }
  }

  async renew(): Promise<void> {
    const now = this.#limits.clock.now()
    const expiresAt = now + this.#limits.groupExpiryMs
    const held: Membership[] = []
    for (const group of this.#groups.values()) {
      for (const member of [...group.expiries.keys()]) {
        if ((group.expiries.get(member) ?? 0) <= now) {
          this.#expire(group, member)
        } else {
          group.set(member, this.keepsMembers ? Number.POSITIVE_INFINITY : expiresAt)
          held.push({ group: group.name, channel: member.channel })
        }
      }
    }
    await this.#transport.renewMemberships(this.name, held, expiresAt, ({ group, channel }) => {
      const known = this.#groups.get(group)
      return known !== undefined && (this.#members.get(channel)?.groups?.has(known) ?? false)
    })
  }

  async close(): Promise<void> {
    this.#closing.abort(
      new ChannelkitError('ERR_BACKEND_CLOSED', `inbox ${this.name} is closed; open a new one`),
    )
    this.#members.clear()
    this.#groups.clear()
    this.#membershipCount = 0
    this.#toDrop = []
    await this.#dropping
    await this.#transport.closeInbox(this.name)
  }

  /** The caller's signal joined with the end of the inbox, once for a loop that passes the same. */
  #untilClosed(signal: AbortSignal | undefined): AbortSignal {
    if (!signal) return this.#closing.signal
    if (this.#callerSignal !== signal || !this.#joinedSignal) {
      this.#callerSignal = signal
      this.#joinedSignal = AbortSignal.any([signal, this.#closing.signal])
    }
    return this.#joinedSignal
  }

  #deliver(entries: readonly InboxEntry[]): readonly Delivery<Owner>[] {
    const deliveries: Delivery<Owner>[] = []
    for (const entry of entries) {
      switch (entry.kind) {
        case 'message': {
          const member = this.#members.get(entry.channel)
          if (member) {
            const { channel, owner } = member
            deliveries.push({
              channel,
              owner,
              content: entry.content,
            } satisfies DirectDelivery<Owner>)
          } else {
            this.#counters.add('dropped.gone')
          }
          break
        }
        case 'group': {
          const group = this.#groups.get(entry.group)
          if (!group) break
          const now = this.#limits.clock.now()
          const owners = group.owners(now, (member) => this.#expire(group, member))
          if (owners.length > 0) {
            // The list may change with the next entry of this batch.
            const fixed = entries.length > 1 ? owners.slice() : owners
            const delivery = { group: entry.group, owners: fixed, content: entry.content }
            deliveries.push(delivery satisfies GroupDelivery<Owner>)
          }
          break
        }
        case 'add':
          this.#add(entry.group, entry.channel, entry.expiresAt)
          break
        case 'discard':
          this.#discard(entry.group, entry.channel)
          break
      }
    }
    if (this.#toDrop.length > 0) this.#drop()
    return deliveries
  }

  #add(name: string, channel: string, expiresAt: number): void {
    const member = this.#members.get(channel)
    if (!member) {
      // The client left before its consumer added it: the backend must not keep it.
      this.#toDrop.push({ group: name, channel })
      return
    }
    let group = this.#groups.get(name)
    if (!group) {
      group = new LocalGroup(name)
      this.#groups.set(name, group)
    }
    member.groups ??= new Set()
    if (!member.groups.has(group)) {
      member.groups.add(group)
      this.#membershipCount++
    }
    group.set(member, this.keepsMembers ? Number.POSITIVE_INFINITY : expiresAt)
  }

  #discard(name: string, channel: string): void {
    const member = this.#members.get(channel)
    const group = this.#groups.get(name)
    if (!member || !group || !member.groups?.delete(group)) return
    group.delete(member)
    this.#forgetMembership(group)
  }

  #expire(group: LocalGroup<Owner>, member: Member<Owner>): void {
    group.delete(member)
    member.groups?.delete(group)
    this.#forgetMembership(group)
  }

  #forgetMembership(group: LocalGroup<Owner>): void {
    this.#membershipCount--
    if (group.expiries.size === 0) this.#groups.delete(group.name)
  }

  /** Ends what piled up in `#toDrop`, one call at a time. A failure costs only waiting for expiry. */
  #drop(): void {
    this.#dropping ??= (async () => {
      // Whatever else ends in this turn goes along.
      await Promise.resolve()
      while (this.#toDrop.length > 0) {
        const batch = this.#toDrop
        this.#toDrop = []
        try {
          await this.#transport.dropMemberships(batch)
        } catch {
          this.#counters.add('dropped.membership-left-to-expire', batch.length)
        }
      }
      this.#dropping = undefined
    })()
  }
}
