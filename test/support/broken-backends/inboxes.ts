import type {
  InboxOptions,
  Membership,
  OutgoingMessage,
  ReceiveOptions,
} from '../../../src/backends/channel-backend.ts'
import { isChannelkitError } from '../../../src/errors.ts'
import { Backend, changeInbox, type Fault, storesOf } from './backend.ts'

class DeliversToFirstInbox extends Backend {
  override send(messages: readonly OutgoingMessage[]) {
    const [first, ...others] = this.store.inboxes.keys()
    if (others.length < 2) return super.send(messages)
    return super.send(
      messages.map((message) => {
        const local = message.channel?.split('!')[1]
        return local === undefined ? message : { ...message, channel: `${first}${local}` }
      }),
    )
  }
}

class ReusesReplyChannels extends Backend {
  override async openInbox<Owner>(options?: InboxOptions) {
    const inbox = await super.openInbox<Owner>(options)
    const made = new Map<Owner, string>()
    return changeInbox(inbox, {
      newChannel(owner) {
        const channel = made.get(owner) ?? inbox.newChannel(owner)
        made.set(owner, channel)
        return channel
      },
    })
  }
}

class DirectMessagesFirst extends Backend {
  override async receiveEntries(inbox: string, options: ReceiveOptions) {
    const queue = this.store.inboxes.get(inbox)
    const entries = [...(queue ?? [])]
    queue?.filter(() => false)
    const direct = entries.filter(({ entry }) => entry.kind === 'message')
    const others = entries.filter(({ entry }) => entry.kind !== 'message')
    for (const entry of [...direct, ...others]) queue?.push(entry)
    return super.receiveEntries(inbox, options)
  }
}

class LeaksEndedMemberships extends Backend {
  #isDiscarding = false

  override async dropMemberships(memberships: readonly Membership[]) {
    if (this.#isDiscarding) await super.dropMemberships(memberships)
  }
  override async groupDiscard(memberships: readonly Membership[]) {
    this.#isDiscarding = true
    const discarding = super.groupDiscard(memberships)
    this.#isDiscarding = false
    return discarding
  }
}

class RenewsNothing extends Backend {
  override async renewMemberships() {
    if (this.store.inboxes.size === 0) await super.groups()
  }
}

class RenewsOnlyRecorded extends Backend {
  override renewMemberships(inbox: string, held: readonly Membership[], expiresAt: number) {
    const recorded = held.filter(({ group, channel }) => this.store.groups.get(group)?.has(channel))
    return super.renewMemberships(inbox, recorded, expiresAt)
  }
}

class RecordsAllHeld extends Backend {
  override async renewMemberships(inbox: string, held: readonly Membership[], expiresAt: number) {
    await super.renewMemberships(inbox, held, expiresAt)
    for (const { group, channel } of held) this.store.groups.get(group)?.set(channel, expiresAt)
  }
}

class InboxCloseLeavesWait extends Backend {
  override async openInbox<Owner>(options?: InboxOptions) {
    const inbox = await super.openInbox<Owner>(options)
    return changeInbox(inbox, { close: () => this.closeInbox(inbox.name) })
  }
}

class InboxNeverFull extends Backend {
  override async send(messages: readonly OutgoingMessage[]) {
    const failures = await super.send(messages)
    return failures.filter(
      ({ index, error }) =>
        error.code !== 'ERR_CHANNEL_FULL' || !messages[index]?.channel.includes('!'),
    )
  }
}

class MembershipChangesExpire extends Backend {
  override async groupAdd(memberships: readonly Membership[]) {
    await super.groupAdd(memberships)
    this.#limitChanges()
  }
  override async groupDiscard(memberships: readonly Membership[]) {
    await super.groupDiscard(memberships)
    this.#limitChanges()
  }
  #limitChanges(): void {
    const expiresAt = this.limits.clock.now() + this.limits.expiryMs
    for (const queue of this.store.inboxes.values()) {
      for (const entry of queue) {
        if (entry.expiresAt === Number.POSITIVE_INFINITY) Object.assign(entry, { expiresAt })
      }
    }
  }
}

class InboxDropsOnAbort extends Backend {
  override async receiveEntries(inbox: string, options: ReceiveOptions) {
    const { signal, waitMs } = options
    if (waitMs === 0 || !signal) return super.receiveEntries(inbox, options)
    const drop = (): void => {
      this.store.inboxes.get(inbox)?.filter(({ entry }) => entry.kind !== 'message')
    }
    signal.addEventListener('abort', drop)
    try {
      return await super.receiveEntries(inbox, options)
    } finally {
      signal.removeEventListener('abort', drop)
    }
  }
}

class SecondInboxReceiveEmpty extends Backend {
  override async openInbox<Owner>(options?: InboxOptions) {
    const inbox = await super.openInbox<Owner>(options)
    return changeInbox(inbox, {
      receive: async (options) => {
        try {
          return await inbox.receive(options)
        } catch (error) {
          if (isChannelkitError(error, 'ERR_INVALID_ARGUMENT')) return []
          throw error
        }
      },
    })
  }
}

class ForgetsRenewalMode extends Backend {
  override openInbox<Owner>() {
    return super.openInbox<Owner>()
  }
}

export const inboxFaults: readonly Fault[] = [
  ['delivers to the first inbox of the store', 'R1', storesOf(DeliversToFirstInbox)],
  ['gives one owner the same reply channel twice', 'R2', storesOf(ReusesReplyChannels)],
  ['delivers direct messages before group messages', 'R3', storesOf(DirectMessagesFirst)],
  ['leaves the memberships of ended channels', 'R4 R5', storesOf(LeaksEndedMemberships)],
  ['renews nothing', 'R6 R7 R8 R14', storesOf(RenewsNothing)],
  ['renews only what the backend still has', 'R7 R14', storesOf(RenewsOnlyRecorded)],
  ['records again what was discarded and not yet read', 'R8', storesOf(RecordsAllHeld)],
  ['leaves a wait pending when an inbox closes', 'R9', storesOf(InboxCloseLeavesWait)],
  ['hides that an inbox is full', 'R10', storesOf(InboxNeverFull)],
  ['lets changes of membership expire', 'C18 R11', storesOf(MembershipChangesExpire)],
  ['empties the inbox when its wait is aborted', 'R12', storesOf(InboxDropsOnAbort)],
  ['answers a second receive on an inbox', 'R13', storesOf(SecondInboxReceiveEmpty)],
  ['lets memberships expire in an inbox that keeps them', 'R14', storesOf(ForgetsRenewalMode)],
]
