/** What can stand in a {@link Roster}. */
export interface Listed {
  /** Its place in the roster that has it; that roster's own business. */
  place: number
}

/**
 * An unordered set of what comes and goes all the time. In a `Set` or `Map` every rehash leaves the
 * old table pointing at the new one; once a table is in V8's old space, all later ones, and what they
 * held, survive until the next full collection.
 */
export class Roster<Item extends Listed> {
  readonly #items: Item[] = []

  get size(): number {
    return this.#items.length
  }

  add(item: Item): void {
    item.place = this.#items.length
    this.#items.push(item)
  }

  /** Removes an item, if it is there. The last one takes its place. */
  delete(item: Item): void {
    if (this.#items[item.place] !== item) return
    const last = this.#items.pop() as Item
    if (last === item) return
    this.#items[item.place] = last
    last.place = item.place
  }

  /** A copy, so that items may go meanwhile. */
  all(): Item[] {
    return this.#items.slice()
  }
}

/** Values by name, where names come and go all the time; see {@link Roster} for why. */
export class NameTable<Value> {
  // An object without prototype is a hash table whose old tables point at nothing.
  #values: Record<string, Value> = Object.create(null)

  get(name: string): Value | undefined {
    return this.#values[name]
  }

  set(name: string, value: Value): void {
    this.#values[name] = value
  }

  delete(name: string): void {
    delete this.#values[name]
  }

  clear(): void {
    this.#values = Object.create(null)
  }
}
