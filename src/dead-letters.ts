import type { ChannelBackend, IncomingMessage } from './backends/channel-backend.ts'
import { type BackendChoice, chosenBackend } from './channel.ts'
import type { Content } from './content.ts'
import { currentSite } from './current-site.ts'
import { afterRunOf } from './delivery.ts'
import { ChannelkitError, shown } from './errors.ts'
import { workChannelNameFault } from './names.ts'

/** A message that was given up, as it lies on its dead-letter channel. */
export interface DeadLetter {
  /** The channel it was sent to. */
  readonly channel: string
  readonly content: Content
  /** How often it was begun. */
  readonly attempts: number
  /** Of what its consumer threw last. */
  readonly error: { readonly name: string; readonly message: string }
  /** In milliseconds since the epoch. */
  readonly failedAt: number
}

/** Which dead letters. */
export interface DeadLetterOptions extends BackendChoice {
  /** Most of them, from the oldest on, 1–10,000. Default 1,000. */
  readonly max?: number
}

// Long enough to send some hundred messages again; when this process dies they come back after it.
const leaseMs = 30_000
const mostAtOnce = 100

/**
 * The dead letters of a channel, the oldest first. They stay where they are; while this looks at them,
 * others find none.
 *
 * @param channel - the channel that the messages were sent to.
 * @throws {ChannelkitError} `ERR_INVALID_NAME`, `ERR_INVALID_ARGUMENT`, `ERR_BACKEND_UNAVAILABLE`
 */
export async function deadLetters(
  channel: string,
  options: DeadLetterOptions = {},
): Promise<readonly DeadLetter[]> {
  const { backend, letterChannel, max } = placeOf(channel, options)
  const taken: IncomingMessage[] = []
  const letters: DeadLetter[] = []
  try {
    while (letters.length < max) {
      const some = await take(backend, letterChannel, max - letters.length)
      if (some.length === 0) break
      taken.push(...some)
      letters.push(...some.flatMap((message) => letterOf(message, channel) ?? []))
    }
  } finally {
    await backend.handBack(taken)
  }
  return letters
}

/**
 * Sends the dead letters of a channel to it again, the oldest first and as new: each once, whoever dies
 * meanwhile. Stops when the channel is full. What else lies on the dead-letter channel stays there.
 *
 * @param channel - the channel that the messages were sent to.
 * @returns how many were sent.
 * @throws {ChannelkitError} `ERR_INVALID_NAME`, `ERR_INVALID_ARGUMENT`, `ERR_BACKEND_UNAVAILABLE`
 */
export async function replayDeadLetters(
  channel: string,
  options: DeadLetterOptions = {},
): Promise<number> {
  const { backend, letterChannel, max } = placeOf(channel, options)
  const left: IncomingMessage[] = []
  let count = 0
  try {
    while (count < max) {
      const some = await take(backend, letterChannel, max - count)
      if (some.length === 0) break
      left.push(...some)
      const { sent, full } = await replay(backend, some, channel)
      for (const message of sent) left.splice(left.indexOf(message), 1)
      count += sent.length
      if (full) break
    }
  } finally {
    if (left.length > 0) await backend.handBack(left)
  }
  return count
}

/** The content of a dead letter. */
export function deadLetterContent({
  channel,
  content,
  attempts,
  error,
  failedAt,
}: DeadLetter): Content {
  return { channel, content, attempts, error, failed_at: failedAt }
}

/** Sends those of some messages that are dead letters of a channel to it, and says which were sent. */
async function replay(
  backend: ChannelBackend,
  messages: readonly IncomingMessage[],
  channel: string,
): Promise<{ readonly sent: readonly IncomingMessage[]; readonly full: boolean }> {
  const replayed = messages.flatMap((message) => {
    const { channel: letterChannel, hold } = message
    const letter = letterOf(message, channel)
    if (!hold || !letter) return []
    const next = { channel, content: letter.content }
    return [{ message, settlement: { message: { channel: letterChannel, hold }, next } }]
  })
  const outcomes = await backend.settle(replayed.map(({ settlement }) => settlement))
  const sent = replayed.filter((_each, place) => outcomes[place] === 'settled')
  return { sent: sent.map(({ message }) => message), full: outcomes.includes('full') }
}

function take(
  backend: ChannelBackend,
  channel: string,
  most: number,
): Promise<readonly IncomingMessage[]> {
  const hold = { channels: [channel], leaseMs }
  return backend.receive([channel], { max: Math.min(most, mostAtOnce), waitMs: 0, hold })
}

function placeOf(
  channel: string,
  { max = 1_000, backend }: DeadLetterOptions,
): { readonly backend: ChannelBackend; readonly letterChannel: string; readonly max: number } {
  const fault = workChannelNameFault(channel)
  if (fault) throw fault
  if (!(Number.isInteger(max) && max >= 1 && max <= 10_000)) {
    throw new ChannelkitError(
      'ERR_INVALID_ARGUMENT',
      `max of dead letters is ${shown(max)}; give a whole number from 1 to 10000`,
    )
  }
  const declaration = currentSite.optional()?.declaration(channel)
  const letterChannel = afterRunOf(channel, declaration)?.deadLetterChannel ?? `${channel}.dead`
  return { backend: chosenBackend(backend), letterChannel, max }
}

/** `undefined` for what is no dead letter of this channel. */
function letterOf({ content: letter }: IncomingMessage, of: string): DeadLetter | undefined {
  const { channel, content, attempts, error, failed_at: failedAt } = letter
  const { name, message } = (error ?? {}) as { readonly [key: string]: unknown }
  if (channel !== of || !isContent(content)) return undefined
  return {
    channel,
    content,
    attempts: Number(attempts),
    error: { name: String(name), message: String(message) },
    failedAt: Number(failedAt),
  }
}

function isContent(value: unknown): value is Content {
  if (typeof value !== 'object' || value === null) return false
  return !Array.isArray(value) && !(value instanceof Uint8Array)
}
