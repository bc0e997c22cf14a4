import type { ChannelkitError } from '../../errors.ts'
import type { Clock } from '../../internal/clock.ts'
import type { IncomingMessage, ReceiveOptions } from '../channel-backend.ts'
import { Wait } from './wait.ts'

/** What a claim brought. */
export interface Claimed {
  readonly messages: readonly IncomingMessage[]
  /** Whether expired messages were among what it took, so that there may be more. */
  readonly isShort: boolean
}

export interface WorkReaderOptions {
  readonly clock: Clock
  /**
   * Takes up to `max` messages. When there is none and it `waits`, `slot` is registered as waiting, and
   * `wake` of it called when one may have come. One that `isRegistered` is forgotten when there are some.
   */
  readonly claim: (
    channels: readonly string[],
    options: ReceiveOptions,
    max: number,
    slot: number,
    waits: boolean,
    isRegistered: boolean,
  ) => Promise<Claimed>
  /** Hears of wake-ups, before the first wait. */
  readonly listen: () => Promise<void>
  /** Ends the wait of a slot; wakes others when it was woken for nothing. */
  readonly unwait: (channels: readonly string[], slot: number) => Promise<void>
}

// A wait looks so often by itself, should who was woken have died before it looked.
const lookAgainMs = 2_000

/** The receives of a process on work channels that are under way, each in a slot of its own. */
export class WorkReader {
  readonly #options: WorkReaderOptions
  readonly #waits: (Wait | undefined)[] = []
  readonly #ending = new Set<Promise<void>>()

  constructor(options: WorkReaderOptions) {
    this.#options = options
  }

  wake(slot: number): void {
    this.#waits[slot]?.wake()
  }

  wakeAll(): void {
    for (const wait of this.#waits) wait?.wake()
  }

  failAll(error: ChannelkitError): void {
    for (const wait of this.#waits) wait?.fail(error)
  }

  /** Resolves when every wait that has ended is forgotten by the server. */
  async settled(): Promise<void> {
    while (this.#ending.size > 0) await Promise.all(this.#ending)
  }

  async receive(
    channels: readonly string[],
    options: ReceiveOptions,
  ): Promise<readonly IncomingMessage[]> {
    const { max, waitMs, signal } = options
    const { clock, claim, listen } = this.#options
    const wait = new Wait(clock, waitMs, signal)
    const slot = this.#freeSlot()
    this.#waits[slot] = wait
    let isRegistered = false
    const messages: IncomingMessage[] = []
    try {
      if (waitMs > 0) await listen()
      for (;;) {
        wait.reset()
        const waits = waitMs > 0 && !wait.isOver && messages.length === 0
        const claimed = await claim(
          channels,
          options,
          max - messages.length,
          slot,
          waits,
          isRegistered,
        )
        isRegistered ||= waits
        if (claimed.messages.length > 0) isRegistered = false
        messages.push(...claimed.messages)
        if (claimed.isShort && messages.length < max) continue
        if (messages.length > 0) return messages
        wait.throwIfOver()
        if (waitMs === 0 || wait.isOver) return messages
        const cancel = clock.schedule(() => wait.wake(), lookAgainMs)
        try {
          if ((await wait.next()) === 'late') return messages
        } finally {
          cancel()
        }
      }
    } finally {
      wait.end()
      this.#waits[slot] = undefined
      if (isRegistered) this.#unwait(channels, slot)
    }
  }

  #unwait(channels: readonly string[], slot: number): void {
    const ending = this.#options.unwait(channels, slot).catch(() => {
      // The server is away: the others look by themselves.
    })
    this.#ending.add(ending)
    void ending.then(() => this.#ending.delete(ending))
  }

  #freeSlot(): number {
    const free = this.#waits.indexOf(undefined)
    return free === -1 ? this.#waits.length : free
  }
}
