import { ChannelkitError, isChannelkitError, shown } from '../errors.ts'
import { channelNameFault, groupNameFault } from '../names.ts'
import type { Membership } from './channel-backend.ts'

/** What every call rejects with after `close`. */
export function closedError(): ChannelkitError {
  return new ChannelkitError('ERR_BACKEND_CLOSED', 'the channel backend is closed; open a new one')
}

/** Refuses a message whose line holds its share of a channel. */
export function lineFullError(channel: string, capacity: number): ChannelkitError {
  return new ChannelkitError(
    'ERR_CHANNEL_FULL',
    `channel ${channel} holds ${capacity} messages of one reply channel, which wait for each other; wait until some have run, or raise lineCapacity`,
  )
}

/**
 * Keeps a wrong value away from a store, which it would fail for all that goes with it.
 *
 * @throws {ChannelkitError} `ERR_INVALID_ARGUMENT`
 */
export function checkNumber(name: string, value: unknown): void {
  if (typeof value === 'number' && !Number.isNaN(value)) return
  throw new ChannelkitError(
    'ERR_INVALID_ARGUMENT',
    `${name} of a message is ${shown(value)}; give a number`,
  )
}

/** @throws {ChannelkitError} `ERR_INVALID_NAME` */
export function checkMemberships(memberships: readonly Membership[]): void {
  for (const { group, channel } of memberships) {
    const fault = groupNameFault(group) ?? channelNameFault(channel)
    if (fault) throw fault
  }
}

/** As the caller gave it, whatever becomes of its object. */
export function copyMembership({ group, channel }: Membership): Membership {
  return { group, channel }
}

/** An error of one message; anything else is thrown on. */
export function ours(error: unknown): ChannelkitError {
  if (!isChannelkitError(error)) throw error
  return error
}
