import { ChannelkitError, shown } from '../errors.ts'
import { isReplyChannel, randomName } from '../names.ts'
import type { BackendLimits, OutgoingMessage } from './channel-backend.ts'

/**
 * Messages that are not to be seen before a time: sent for later, held by who has taken them, or to be
 * tried again. Each backend keeps one store of them, by channel and name. From their time on they are
 * put on their channels by any process that looks, and each process that receives or sends for later
 * does so at the time of the first, and at least every {@link lookMs}.
 */
export const lookMs = 1_000

/** Looks are no closer together than this, in milliseconds. */
export const shortestLookMs = 5

/** So many messages are put on their channels by one look. */
export const mostPerLook = 500

/** How long the name of a message that was sent `once` is remembered after its time. */
export const rememberMs = 3_600_000

/** Longest time until a message is delivered: 366 days. */
export const longestDelayMs = 31_622_400_000

const idPattern = /^[A-Za-z0-9._-]{1,200}$/

/** A message for later, with every default filled in. */
export interface LaterMessage {
  readonly id: string
  readonly once: boolean
  readonly deliverAt: number
  readonly expiresAt: number
}

/**
 * What a message says of later, or `undefined` when it is for now.
 *
 * @throws {ChannelkitError} `ERR_INVALID_ARGUMENT`
 */
export function laterOf(
  { channel, deliverAt, id, once, expiresAt }: OutgoingMessage,
  limits: BackendLimits,
): LaterMessage | undefined {
  if (deliverAt === undefined) {
    if (id === undefined && once === undefined) return undefined
    throw invalid(
      `a message on ${channel} has an id and no deliverAt; give the time it is delivered at`,
    )
  }
  if (isReplyChannel(channel)) {
    throw invalid(
      'a message for a reply channel cannot wait, since its client may be gone by then; send it to a work channel, whose consumer answers',
    )
  }
  const now = limits.clock.now()
  if (!(typeof deliverAt === 'number' && deliverAt <= now + longestDelayMs)) {
    throw invalid(
      `deliverAt of a message on ${channel} is ${shown(deliverAt)}; give a time in milliseconds since the epoch, at most 366 days from now`,
    )
  }
  if (id !== undefined) checkId(id)
  const at = Math.round(Math.max(deliverAt, now))
  return {
    id: id ?? randomName(),
    once: once === true,
    deliverAt: at,
    expiresAt: expiresAt ?? at + limits.expiryMs,
  }
}

/** @throws {ChannelkitError} `ERR_INVALID_ARGUMENT` */
export function checkId(id: unknown): asserts id is string {
  if (typeof id === 'string' && idPattern.test(id)) return
  throw invalid(`the id of a message is ${shown(id)}; use 1-200 of A-Z a-z 0-9 . _ -`)
}

/** The name of a held message among those of its channel: none that was sent for later has such. */
export function holdName(token: string): string {
  return `/${token}`
}

/** The error for a channel with its fill of messages whose time has not come. */
export function delayedFullError(channel: string, capacity: number): ChannelkitError {
  return new ChannelkitError(
    'ERR_CHANNEL_FULL',
    `channel ${channel} holds ${capacity} messages for later; wait until some have been delivered, or raise delayedCapacity`,
  )
}

function invalid(message: string): ChannelkitError {
  return new ChannelkitError('ERR_INVALID_ARGUMENT', message)
}
