import { ChannelkitError, shown } from './errors.ts'

/**
 * Thrown by a consumer on purpose, to have the same message run again later. The worker keeps
 * count: after its limit of tries (default 10) or past the message's expiry it is dropped, counted
 * as `dropped.requeued-too-often` or `dropped.expired`, and logged.
 */
export class Requeue {
  /** How long to wait before the next try, in milliseconds; by default longer with each try. */
  readonly delayMs: number | undefined

  /** @throws {ChannelkitError} `ERR_INVALID_ARGUMENT` for a delay that is no number from 0. */
  constructor(options: { readonly delayMs?: number } = {}) {
    const { delayMs } = options
    if (delayMs !== undefined && !(delayMs >= 0)) {
      throw new ChannelkitError(
        'ERR_INVALID_ARGUMENT',
        `a requeued message cannot wait ${shown(delayMs)} ms; give 0 or more`,
      )
    }
    this.delayMs = delayMs
  }
}
