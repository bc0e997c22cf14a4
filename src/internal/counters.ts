/**
 * Named counts that only grow. Every message that is dropped anywhere adds to a `dropped.<reason>`.
 */
export class Counters {
  readonly #counts = new Map<string, number>()

  /** Adds `by` (default 1) to `name`. */
  add(name: string, by = 1): void {
    this.#counts.set(name, (this.#counts.get(name) ?? 0) + by)
  }

  /** The count of `name`, 0 when nothing was counted. */
  get(name: string): number {
    return this.#counts.get(name) ?? 0
  }

  /** All counts by name. */
  snapshot(): Record<string, number> {
    return Object.fromEntries(this.#counts)
  }
}
