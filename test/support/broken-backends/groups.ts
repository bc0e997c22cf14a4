import type { Membership } from '../../../src/backends/channel-backend.ts'
import { Backend, type Fault, type GroupMessage, storesOf, turn } from './backend.ts'

class AddDoesNotRenew extends Backend {
  override async groupAdd(memberships: readonly Membership[]) {
    const absent = memberships.filter(
      ({ group, channel }) => !this.store.groups.get(group)?.has(channel),
    )
    return super.groupAdd(absent.length < memberships.length ? absent : memberships)
  }
}

class TellsOfRejoiningLater extends Backend {
  readonly #joined = new Set<string>()

  override async groupAdd(memberships: readonly Membership[]) {
    const keyOf = ({ group, channel }: Membership): string => JSON.stringify([group, channel])
    const known = memberships.filter((membership) => this.#joined.has(keyOf(membership)))
    const others = memberships.filter((membership) => !known.includes(membership))
    await super.groupAdd(others)
    for (const membership of others) this.#joined.add(keyOf(membership))
    if (known.length === 0) return
    // It may come after the test has closed the backend.
    turn()
      .then(() => super.groupAdd(known))
      .catch(() => {})
  }
}

class DiscardsOnlyLocally extends Backend {
  override async groupDiscard(memberships: readonly Membership[]) {
    const recorded = memberships.flatMap(({ group, channel }) => {
      const expiresAt = this.store.groups.get(group)?.get(channel)
      return expiresAt === undefined || !channel.includes('!')
        ? []
        : [{ group, channel, expiresAt }]
    })
    await super.groupDiscard(memberships)
    for (const { group, channel, expiresAt } of recorded) {
      const members = this.store.groups.get(group) ?? new Map<string, number>()
      this.store.groups.set(group, members.set(channel, expiresAt))
    }
  }
}

class OneEntryPerMember extends Backend {
  override async groupSend(messages: readonly GroupMessage[]) {
    for (const message of messages) {
      const channels = [...(this.store.groups.get(message.group)?.keys() ?? [])]
      const replies = channels.filter((channel) => channel.includes('!'))
      if (new Set(replies.map((channel) => channel.split('!')[0])).size < replies.length) {
        await super.groupSend([message])
      }
    }
    return super.groupSend(messages)
  }
}

class DiscardOfAbsentFails extends Backend {
  override async groupDiscard(memberships: readonly Membership[]) {
    for (const { group, channel } of memberships) {
      if (channel === 'never.added' && !this.store.groups.get(group)?.has(channel)) {
        throw new RangeError(`${channel} is not in ${group}`)
      }
    }
    return super.groupDiscard(memberships)
  }
}

class MembershipsNeverExpire extends Backend {
  override async groupAdd(memberships: readonly Membership[]) {
    await super.groupAdd(memberships)
    for (const { group, channel } of memberships) {
      this.store.groups.get(group)?.set(channel, Number.POSITIVE_INFINITY)
    }
  }
}

class SendsExtendMemberships extends Backend {
  override async groupSend(messages: readonly GroupMessage[]) {
    const expiresAt = this.limits.clock.now() + this.limits.groupExpiryMs
    for (const { group } of messages) {
      const members = this.store.groups.get(group)
      for (const channel of members?.keys() ?? []) members?.set(channel, expiresAt)
    }
    return super.groupSend(messages)
  }
}

class StopsAtFullMember extends Backend {
  override async groupSend(messages: readonly GroupMessage[]) {
    for (const { group } of messages) {
      for (const channel of this.store.groups.get(group)?.keys() ?? []) {
        const waiting = this.store.channels.get(channel)?.size ?? 0
        if (waiting >= this.limits.capacityOf(channel)) return []
      }
    }
    return super.groupSend(messages)
  }
}

class ListsReplyChannelsOnly extends Backend {
  override async groupChannels(group: string) {
    return (await super.groupChannels(group)).filter((channel) => channel.includes('!'))
  }
}

/** Reads the members, changes the list, writes it back: not in one step. */
class RewritesMemberList extends Backend {
  override async groupAdd(memberships: readonly Membership[]) {
    await super.groupAdd(memberships)
    const [membership] = memberships
    const members = membership && this.store.groups.get(membership.group)
    if (!membership || !members?.has(membership.channel)) return
    const rest = new Map(members)
    members.clear()
    await turn()
    for (const [channel, expiresAt] of rest) {
      if (!members.has(channel)) members.set(channel, expiresAt)
    }
    this.store.groups.set(membership.group, members)
  }
}

class KeepsSendsToNobody extends Backend {
  override async groupSend(messages: readonly GroupMessage[]) {
    for (const { group, content } of messages) {
      if (group === 'unknown') await this.send([{ channel: group, content }])
    }
    return super.groupSend(messages)
  }
}

class OneFaultStopsGroupBatch extends Backend {
  override async groupSend(messages: readonly GroupMessage[]) {
    for (const [index, message] of messages.entries()) {
      const [failure] = await super.groupSend([message])
      if (failure) return [{ index, error: failure.error }]
    }
    return []
  }
}

class RecordsUntilTheFault extends Backend {
  override async groupAdd(memberships: readonly Membership[]) {
    for (const membership of memberships) await super.groupAdd([membership])
  }
}

export const groupFaults: readonly Fault[] = [
  ['renews nothing when a member is added again', 'G1', storesOf(AddDoesNotRenew)],
  ['lets members rejoin after the call has returned', 'G2', storesOf(TellsOfRejoiningLater)],
  ['keeps a discarded member in the listing', 'G7 R8', storesOf(DiscardsOnlyLocally)],
  ['gives an inbox one copy for each member', 'G2 G3 G5 G8 R7', storesOf(OneEntryPerMember)],
  ['fails to discard an absent member', 'G4', storesOf(DiscardOfAbsentFails)],
  ['never ends a membership', 'G1 G5 G9 R6 S4', storesOf(MembershipsNeverExpire)],
  ['lets a group send extend memberships', 'G1 G5 R6', storesOf(SendsExtendMemberships)],
  ['stops a group send at a full member', 'G6', storesOf(StopsAtFullMember)],
  [
    'lists only reply channels as members',
    'N2 N5 G1 G4 G7 G11 X8',
    storesOf(ListsReplyChannelsOnly),
  ],
  ['rewrites the list of members in two steps', 'G8', storesOf(RewritesMemberList)],
  ['keeps what is sent to a group without members', 'G9', storesOf(KeepsSendsToNobody)],
  ['gives up a batch to groups at a fault', 'G10', storesOf(OneFaultStopsGroupBatch)],
  ['records memberships up to a faulty name', 'G11', storesOf(RecordsUntilTheFault)],
]
