/**
 * Named counts that only grow. Every message that is dropped anywhere adds to a `dropped.<reason>`.
 */
export class Counters {
  readonly #counts = new Map<string, number>()
  readonly #listeners = new Map<string, () => void>()

  /** Adds `by` (default 1) to `name`. */
  add(name: string, by = 1): void {
    this.#counts.set(name, (this.#counts.get(name) ?? 0) + by)
    this.#listeners.get(name)?.()
  }

  /** Calls `listener` whenever something was added to `name`, instead of the one it had. */
  onAdd(name: string, listener: () => void): void {
    this.#listeners.set(name, listener)
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
