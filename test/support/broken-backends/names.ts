import type {
  Membership,
  OutgoingMessage,
  ReceiveOptions,
} from '../../../src/backends/channel-backend.ts'
import { isChannelkitError } from '../../../src/errors.ts'
import { Backend, type Fault, type GroupMessage, storesOf } from './backend.ts'

class UncheckedChannelNames extends Backend {
  override async send(messages: readonly OutgoingMessage[]) {
    const failures = await super.send(messages)
    return failures.filter(({ error }) => error.code !== 'ERR_INVALID_NAME')
  }
}

class UncheckedGroupNames extends Backend {
  override async groupChannels(group: string) {
    try {
      return await super.groupChannels(group)
    } catch (error) {
      if (isChannelkitError(error, 'ERR_INVALID_NAME')) return []
      throw error
    }
  }
}

class GroupsShareChannelNames extends Backend {
  override async groupSend(messages: readonly GroupMessage[]) {
    for (const { group, content } of messages) {
      if (this.store.channels.has(group)) await this.send([{ channel: group, content }])
    }
    return super.groupSend(messages)
  }
}

class ReceivesOnAnyName extends Backend {
  override async receive(channels: readonly string[], options: ReceiveOptions) {
    try {
      return await super.receive(channels, options)
    } catch (error) {
      if (isChannelkitError(error, 'ERR_INVALID_NAME')) return []
      throw error
    }
  }
}

class LowerCaseGroups extends Backend {
  override groupAdd(memberships: readonly Membership[]) {
    return super.groupAdd(memberships.map((each) => ({ ...each, group: fold(each.group) })))
  }
  override groupDiscard(memberships: readonly Membership[]) {
    return super.groupDiscard(memberships.map((each) => ({ ...each, group: fold(each.group) })))
  }
  override groupSend(messages: readonly GroupMessage[]) {
    return super.groupSend(messages.map((each) => ({ ...each, group: fold(each.group) })))
  }
  override groupChannels(group: string) {
    return super.groupChannels(fold(group))
  }
}

function fold(group: string): string {
  return typeof group === 'string' ? group.toLowerCase() : group
}

export const nameFaults: readonly Fault[] = [
  ['lets any channel name pass', 'N1', storesOf(UncheckedChannelNames)],
  ['lists the members of groups with any name', 'N2', storesOf(UncheckedGroupNames)],
  [
    'sends to the channel that is called like the group',
    'N3 N5',
    storesOf(GroupsShareChannelNames),
  ],
  ['receives on any name', 'N4', storesOf(ReceivesOnAnyName)],
  ['folds the case of group names', 'N2 N5', storesOf(LowerCaseGroups)],
]
