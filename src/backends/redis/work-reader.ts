import { type ChannelkitError, isChannelkitError } from '../../errors.ts'
import type { Clock } from '../../internal/clock.ts'
import type { IncomingMessage, ReceiveOptions } from '../channel-backend.ts'
import { Wait } from './wait.ts'

/** What a claim brought. */
export interface Claimed {
  readonly messages: readonly IncomingMessage[]
  /** Whether expired messages were among what it took, so that there may be more. */
  readonly isShort: boolean
  /** It took nothing, since who `isRegistered` has been woken, or handed something, which has been heard by now. */
  readonly wasWoken: boolean
}

/** Entries of a channel that were handed to a receive while it waited. */
export interface HandedOver {
  readonly channel: string
  readonly entries: readonly Buffer[]
}

/** A receive that is under way. */
interface Receive {
  readonly wait: Wait
  handed: HandedOver | undefined
  /** Whether the server may know that it waits. */
  isRegistered: boolean
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
  /** The messages in entries of a channel that were handed over. */
  readonly read: (handed: HandedOver) => readonly IncomingMessage[]
  /** Puts entries back that were handed over to a receive that had ended. */
  readonly returned: (handed: HandedOver) => Promise<void>
  /** Ends the wait of a slot; wakes others when it was woken for nothing. */
  readonly unwait: (channels: readonly string[], slot: number) => Promise<void>
}

// A wait looks so often by itself, should who was woken have died before it looked.
const lookAgainMs = 2_000

/** The receives of a process on work channels that are under way, each under a number of its own, its slot. */
export class WorkReader {
  readonly #options: WorkReaderOptions
  readonly #receives = new Map<number, Receive>()
  readonly #ending = new Set<Promise<void>>()
  #lastSlot = 0

  constructor(options: WorkReaderOptions) {
    this.#options = options
  }

  /** The server has forgotten that it waits. */
  wake(slot: number): void {
    const receive = this.#receives.get(slot)
    if (!receive) return
    receive.isRegistered = false
    receive.wait.wake()
  }

  /** What was handed to a receive; the server has forgotten that it waits. */
  handOver(slot: number, handed: HandedOver): void {
    const receive = this.#receives.get(slot)
    if (!receive || receive.handed) {
      this.#return(handed)
      return
    }
    receive.handed = handed
    receive.isRegistered = false
    receive.wait.wake()
  }

  wakeAll(): void {
    for (const { wait } of this.#receives.values()) wait.wake()
  }

  failAll(error: ChannelkitError): void {
    for (const { wait } of this.#receives.values()) wait.fail(error)
  }

  /** Resolves when every wait that has ended is forgotten by the server, and all is put back that was not wanted. */
  async settled(): Promise<void> {
    while (this.#ending.size > 0) await Promise.all(this.#ending)
  }

  async receive(
    channels: readonly string[],
    options: ReceiveOptions,
  ): Promise<readonly IncomingMessage[]> {
    const { max, waitMs, signal } = options
    const { clock, claim, listen, read } = this.#options
    const wait = new Wait(clock, waitMs, signal)
    const slot = ++this.#lastSlot
    const receive: Receive = { wait, handed: undefined, isRegistered: false }
    this.#receives.set(slot, receive)
    const messages: IncomingMessage[] = []
    try {
      // What was handed to a receive that has ended is to be found where it was.
      if (this.#ending.size > 0) await this.settled()
      if (waitMs > 0) await listen()
      for (;;) {
        wait.reset()
        const waits = waitMs > 0 && !wait.isOver && messages.length === 0
        const wasRegistered = receive.isRegistered
        // From before the answer, since what follows from it may be heard before it.
        receive.isRegistered ||= waits
        const claimed = await claim(
          channels,
          options,
          max - messages.length,
          slot,
          waits,
          wasRegistered,
        )
        if (claimed.wasWoken) {
          receive.isRegistered = false
          if (!receive.handed) {
            wait.throwIfOver()
            continue
          }
        }
        if (claimed.messages.length > 0) receive.isRegistered = false
        messages.push(...claimed.messages)
        if (claimed.isShort && messages.length < max) continue
        if (messages.length > 0) return messages
        if (receive.handed) wait.wake()
        else {
          wait.throwIfOver()
          if (waitMs === 0 || wait.isOver) return messages
        }
        const cancel = clock.schedule(() => wait.wake(), lookAgainMs)
        try {
          const end = await wait.next().catch((error: unknown) => {
            // What was handed over before the server went away is here.
            if (receive.handed && isChannelkitError(error, 'ERR_BACKEND_UNAVAILABLE')) return 'look'
            throw error
          })
          const { handed } = receive
          if (handed) {
            receive.handed = undefined
            messages.push(...read(handed))
            if (messages.length > 0) return messages
          }
          if (end === 'late') return messages
        } finally {
          cancel()
        }
      }
    } finally {
      wait.end()
      this.#receives.delete(slot)
      if (receive.handed) this.#return(receive.handed)
      if (receive.isRegistered) this.#end(this.#options.unwait(channels, slot))
    }
  }

  #return(handed: HandedOver): void {
    this.#end(this.#options.returned(handed))
  }

  #end(work: Promise<void>): void {
    const ending = work.catch(() => {
      // The server is away: the others look by themselves.
    })
    this.#ending.add(ending)
    void ending.then(() => this.#ending.delete(ending))
  }
}
