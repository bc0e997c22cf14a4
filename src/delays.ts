import type { OutgoingMessage } from './backends/channel-backend.ts'
import { longestDelayMs } from './backends/later.ts'
import { ChannelkitError, shown } from './errors.ts'
import type { Clock } from './internal/clock.ts'
import { randomName } from './names.ts'

/** When a message is delivered, and what it is called by until then. */
export interface Delay {
  /** How long it waits, in milliseconds, 0 or more, at most 366 days. */
  readonly delayMs?: number
  /** When it is delivered: a date, or milliseconds since the epoch; a past time is now. */
  readonly at?: Date | number
  /**
   * What `cancel` calls it by: 1–200 of `A-Z a-z 0-9 . _ -`. Another message of this id on the
   * channel is not stored while this one waits, nor until an hour after its time; so that what many
   * processes send at the same time, or one sends again, is delivered once. Default a random one.
   */
  readonly id?: string
}

/** At least one of the three says that a message is for later. */
export type SomeDelay =
  | (Delay & { readonly delayMs: number })
  | (Delay & { readonly at: Date | number })
  | (Delay & { readonly id: string })

/** Whether options of a send are those of one for later. */
export function isForLater(options: Delay | undefined): options is SomeDelay {
  if (options === undefined) return false
  return options.delayMs !== undefined || options.at !== undefined || options.id !== undefined
}

/** What a backend is told of a message for later. */
export type Later = Required<Pick<OutgoingMessage, 'deliverAt' | 'id' | 'once'>>

/**
 * Checks a delay that counts from now.
 *
 * @returns the message's id, and what the backend is told, to be asked for when its clock is known.
 * @throws {ChannelkitError} `ERR_INVALID_ARGUMENT`
 */
export function delayFromNow(
  channel: string,
  delay: Delay,
  clock: Clock,
): { readonly id: string; readonly later: () => Later } {
  const calledAt = clock.elapsed()
  const { id } = laterAt(channel, delay, clock.now())
  const now = (): number => clock.now() - (clock.elapsed() - calledAt)
  return { id, later: () => ({ ...laterAt(channel, delay, now()), id }) }
}

/**
 * What the backend is told of a delay.
 *
 * @param now - by the backend's clock.
 * @throws {ChannelkitError} `ERR_INVALID_ARGUMENT`
 */
export function laterAt(channel: string, { delayMs, at, id }: Delay, now: number): Later {
  if (delayMs !== undefined && at !== undefined) {
    throw invalid(`a message on ${channel} has both delayMs and at; give one of them`)
  }
  if (delayMs !== undefined && !(typeof delayMs === 'number' && delayMs >= 0)) {
    throw invalid(`delayMs of a message on ${channel} is ${shown(delayMs)}; give 0 or more`)
  }
  const time = at instanceof Date ? at.getTime() : at
  if (time !== undefined && !(typeof time === 'number' && Number.isFinite(time))) {
    throw invalid(
      `at of a message on ${channel} is ${shown(at)}; give a Date or milliseconds since the epoch`,
    )
  }
  const deliverAt = Math.max(0, time ?? now + (delayMs ?? 0))
  if (deliverAt - now > longestDelayMs) {
    const days = Math.floor((deliverAt - now) / 86_400_000)
    throw invalid(
      `a message on ${channel} is to wait ${days} days; the longest wait is 366, so store what is further off in a database of yours`,
    )
  }
  // Never with a dash in front, which a command line would take for an option.
  return { deliverAt, id: id ?? `m.${randomName()}`, once: id !== undefined }
}

const timeForm = /^\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:\d\d)$/

/** Reads a time such as `2030-01-01T08:00:00Z`, with its zone (RFC 3339); undefined for anything else. */
export function readTime(text: string): Date | undefined {
  const time = timeForm.test(text) ? new Date(text) : undefined
  return time && Number.isFinite(time.getTime()) ? time : undefined
}

/** @throws {ChannelkitError} `ERR_NOT_SUPPORTED` when a send to a group is to wait. */
export function refuseDelay(
  options: (Delay & { readonly immediately?: boolean }) | undefined,
): void {
  if (!isForLater(options)) return
  throw new ChannelkitError(
    'ERR_NOT_SUPPORTED',
    'a message to a group cannot wait, since its members change; send it for later to a channel, whose consumer sends to the group',
  )
}

function invalid(message: string): ChannelkitError {
  return new ChannelkitError('ERR_INVALID_ARGUMENT', message)
}
