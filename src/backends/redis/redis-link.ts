import type { ChannelkitError } from '../../errors.ts'
import type { Script } from './wire.ts'

/** Is told what is published on a channel. */
export type Subscriber = (message: Buffer) => void

/** The way to Redis, whatever it consists of. */
export interface RedisLink {
  /** The command that reaches subscribers from a script. */
  readonly publish: 'PUBLISH' | 'SPUBLISH'
  /** How long a call waits, in milliseconds. */
  readonly timeoutMs: number
  open(): Promise<void>
  /**
   * Runs a script in the slot of `base`, again when the connection was lost under it.
   *
   * @throws {ChannelkitError} `ERR_BACKEND_UNAVAILABLE` in bounded time.
   */
  call<Reply>(script: Script, base: string, args: readonly (string | Buffer)[]): Promise<Reply>
  /** The keys that begin with `start`, in batches, from every server. */
  keys(start: string): AsyncIterable<readonly string[]>
  /** Deletes keys of one slot. */
  unlink(keys: readonly string[]): Promise<void>
  /** Hears what scripts in a slot publish, also after each reconnect. */
  subscribe(channel: string, subscriber: Subscriber): Promise<void>
  unsubscribe(channel: string): void
  /**
   * Whether work may be handed to who waits as a message that is published: where nobody but the server that ran the
   * script can have told of it, which the number of its receivers shows.
   */
  readonly handsOver: boolean
  /** Resolves when all that was published before is heard, or lost with its connection. */
  heard(): Promise<void>
  /** Whenever there is a connection anew: what was published in between is lost, or all data is. */
  onUp(listener: () => void): void
  /** When an outage has lasted longer than calls wait. */
  onDown(listener: (error: ChannelkitError) => void): void
  close(): Promise<void>
}

const inDoubt = new WeakSet<Error>()

/** Notes that the call which failed so may have been carried out; returns the error. */
export function withDoubt<Fault extends Error>(error: Fault): Fault {
  inDoubt.add(error)
  return error
}

/** Whether the call that failed so may have been carried out. */
export function isInDoubt(error: unknown): boolean {
  return error instanceof Error && inDoubt.has(error)
}
