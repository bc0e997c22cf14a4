import { ChannelkitError, shown } from '../errors.ts'
import { workChannelNameFault } from '../names.ts'
import type { ReceiveOptions } from './channel-backend.ts'

// Lists that passed, so that a worker's long-lived list is checked once.
const checked = new WeakSet<readonly string[]>()

/**
 * Checks the arguments of `receive`.
 *
 * @throws {ChannelkitError} `ERR_INVALID_NAME`, `ERR_INVALID_ARGUMENT`; the signal's own reason
 *   when it is aborted already.
 */
export function checkReceive(
  channels: readonly string[],
  { max, waitMs, signal }: ReceiveOptions,
): void {
  signal?.throwIfAborted()
  if (!(Number.isInteger(max) && max >= 1)) {
    throw new ChannelkitError(
      'ERR_INVALID_ARGUMENT',
      `receive was asked for max ${shown(max)}; give a whole number from 1`,
    )
  }
  if (!(typeof waitMs === 'number' && waitMs >= 0)) {
    throw new ChannelkitError(
      'ERR_INVALID_ARGUMENT',
      `receive was asked to wait ${shown(waitMs)} ms; give 0 or more, or Infinity`,
    )
  }
  if (checked.has(channels)) return
  if (channels.length === 0) {
    throw new ChannelkitError(
      'ERR_INVALID_ARGUMENT',
      'receive was given no channel; name at least one',
    )
  }
  for (const channel of channels) {
    const fault = workChannelNameFault(channel)
    if (fault) throw fault
  }
  if (Object.isFrozen(channels)) checked.add(channels)
}
