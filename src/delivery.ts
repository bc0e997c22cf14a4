import { ChannelkitError, shown } from './errors.ts'
import { workChannelNameFault } from './names.ts'

/** When a worker is done with the messages of a channel, and what becomes of those that fail. */
export interface ChannelDelivery {
  /**
   * With `afterRun` a message counts as taken only when its consumer has succeeded: until then it
   * comes again, when the consumer throws or its worker dies, so it may run more than once. With
   * `beforeRun` it runs at most once. Default `beforeRun`.
   */
  readonly acknowledge?: 'beforeRun' | 'afterRun'
  /**
   * With `afterRun`: how often a message is begun, with `Requeue` and with workers that died, before it
   * is a dead letter, 1–1,000. Default 5.
   */
  readonly maxAttempts?: number
  /**
   * With `afterRun`: about how long the first other try waits, in milliseconds, 1–86,400,000; each
   * further one twice as long, up to 15 minutes. Default 1,000.
   */
  readonly retryDelayMs?: number
  /** With `afterRun`: where messages go that failed too often. Default the name with `.dead`. */
  readonly deadLetterChannel?: string
}

/** {@link ChannelDelivery} of a channel that is acknowledged after the run, with every default. */
export type AfterRun = Readonly<Required<Omit<ChannelDelivery, 'acknowledge'>>>

const longestRetryMs = 900_000

/**
 * How a channel is acknowledged after the run, or `undefined` when it is not.
 *
 * @throws {ChannelkitError} `ERR_INVALID_CONFIG`, `ERR_INVALID_NAME`
 */
export function afterRunOf(
  channel: string,
  declaration: ChannelDelivery | undefined,
): AfterRun | undefined {
  const { acknowledge = 'beforeRun', ...settings } = declaration ?? {}
  if (acknowledge !== 'afterRun') {
    if (acknowledge === 'beforeRun') return undefined
    throw new ChannelkitError(
      'ERR_INVALID_CONFIG',
      `acknowledge of channel ${channel} is ${shown(acknowledge)}; give 'beforeRun' or 'afterRun'`,
    )
  }
  const { maxAttempts = 5, retryDelayMs = 1_000 } = settings
  const deadLetterChannel = settings.deadLetterChannel ?? `${channel}.dead`
  const fault = workChannelNameFault(deadLetterChannel)
  if (fault) throw fault
  if (deadLetterChannel === channel) {
    throw new ChannelkitError(
      'ERR_INVALID_CONFIG',
      `deadLetterChannel of channel ${channel} is the channel itself; give another`,
    )
  }
  return Object.freeze({
    maxAttempts: number(channel, 'maxAttempts', maxAttempts, 1_000),
    retryDelayMs: number(channel, 'retryDelayMs', retryDelayMs, 86_400_000),
    deadLetterChannel,
  })
}

/** How long a message waits that has failed so many times, in milliseconds; some of it at random. */
export function retryDelay(failures: number, { retryDelayMs }: AfterRun): number {
  const most = Math.max(longestRetryMs, retryDelayMs)
  const delayMs = Math.min(most, retryDelayMs * 2 ** (failures - 1))
  // Not all at once that failed together.
  return Math.ceil(delayMs * (0.5 + Math.random() / 2))
}

function number(channel: string, name: string, value: unknown, most: number): number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= 1 && value <= most) {
    return value
  }
  throw new ChannelkitError(
    'ERR_INVALID_CONFIG',
    `${name} of channel ${channel} is ${shown(value)}; give a whole number from 1 to ${most}`,
  )
}
