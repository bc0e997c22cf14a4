import { ChannelkitError, shown } from '../errors.ts'
import { systemClock } from '../internal/clock.ts'
import { capacityLookup } from './capacity.ts'
import type { BackendLimits, BackendOptions } from './channel-backend.ts'

const knownOptions: ReadonlySet<string> = new Set([
  'capacity',
  'channelCapacity',
  'inboxCapacity',
  'lineCapacity',
  'delayedCapacity',
  'expiryMs',
  'groupExpiryMs',
  'maxContentBytes',
  'clock',
] satisfies (keyof BackendOptions)[])

/**
 * Fills in the defaults of {@link BackendOptions}; a backend takes options of its own out first, so
 * that one which is misspelt is found.
 *
 * @throws {ChannelkitError} `ERR_INVALID_CONFIG` naming the option and its value.
 */
export function resolveLimits(options: BackendOptions = {}): BackendLimits {
  for (const [key, value] of Object.entries(options)) {
    if (knownOptions.has(key)) continue
    throw new ChannelkitError(
      'ERR_INVALID_CONFIG',
      `a channel backend has an unknown option ${shown(key)}, which is ${shown(value)}; besides options of its own it may have ${[...knownOptions].join(', ')}`,
    )
  }
  const count = (name: keyof BackendOptions, fallback: number): number =>
    wholeNumber(name, options[name] ?? fallback)
  const capacity = count('capacity', 1_000)
  return Object.freeze({
    capacity,
    capacityOf: capacityLookup(capacity, options.channelCapacity),
    inboxCapacity: count('inboxCapacity', 10_000),
    lineCapacity: count('lineCapacity', 100),
    delayedCapacity: count('delayedCapacity', 10_000),
    expiryMs: count('expiryMs', 60_000),
    groupExpiryMs: count('groupExpiryMs', 60_000),
    maxContentBytes: count('maxContentBytes', 1_048_576),
    clock: options.clock ?? systemClock,
  })
}

/** @throws {ChannelkitError} `ERR_INVALID_CONFIG` when an option is no whole number from 1. */
export function wholeNumber(name: string, value: unknown): number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= 1) return value
  throw new ChannelkitError(
    'ERR_INVALID_CONFIG',
    `${name} is ${shown(value)}; give a whole number from 1`,
  )
}
