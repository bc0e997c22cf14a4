/**
 * Thrown by a consumer on purpose, to have the same message run again later. The worker keeps
 * count: after its limit of tries (default 10) or past the message's expiry it is dropped, counted
 * as `dropped.requeued-too-often` or `dropped.expired`, and logged.
 */
export class Requeue {
  /** How long to wait before the next try, in milliseconds; by default longer with each try. */
  readonly delayMs: number | undefined

  constructor(options: { readonly delayMs?: number } = {}) {
    this.delayMs = options.delayMs
  }
}
