import type { ChannelBackend, IncomingMessage, SettleOutcome } from './backends/channel-backend.ts'
import { type BackendChoice, chosenBackend } from './channel.ts'
import type { Content } from './content.ts'
import { currentSite } from './current-site.ts'
import { afterRunOf } from './delivery.ts'
import { ChannelkitError, shown } from './errors.ts'
import { checkChannelName } from './names.ts'

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
  try {
    while (taken.length < max) {
      const some = await take(backend, letterChannel, max - taken.length)
      if (some.length === 0) break
      taken.push(...some)
    }
  } finally {
    await backend.handBack(taken)
  }
  return taken.flatMap((message) => letterOf(message) ?? [])
}

/**
 * Sends dead letters to their channel again, the oldest first and as new: each once, whoever dies
 * meanwhile. Stops when the channel is full.
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
      const outcomes = await replay(backend, some)
      count += outcomes.filter((outcome) => outcome === 'settled').length
      left.push(...some.filter((_message, place) => outcomes[place] === 'full'))
      if (left.length > 0) break
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

async function replay(
  backend: ChannelBackend,
  messages: readonly IncomingMessage[],
): Promise<readonly SettleOutcome[]> {
  return await backend.settle(
    messages.flatMap((message) => {
      const { channel, hold } = message
      const letter = letterOf(message)
      if (!hold) return []
      // What is no dead letter has nowhere to go, and stays.
      const next = letter
        ? { channel: letter.channel, content: letter.content }
        : { channel, content: message.content, expiresAt: message.expiresAt }
      return [{ message: { channel, hold }, next }]
    }),
  )
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
  checkChannelName(channel)
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

/** `undefined` for what is no dead letter. */
function letterOf({ content: letter }: IncomingMessage): DeadLetter | undefined {
  const { channel, content, attempts, error, failed_at: failedAt } = letter
  const { name, message } = (error ?? {}) as { readonly [key: string]: unknown }
  if (typeof channel !== 'string' || typeof content !== 'object' || content === null) {
    return undefined
  }
  return {
    channel,
    content: content as Content,
    attempts: Number(attempts),
    error: { name: String(name), message: String(message) },
    failedAt: Number(failedAt),
  }
}
