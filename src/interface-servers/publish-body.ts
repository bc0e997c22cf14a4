import type { BackendLimits, OutgoingMessage } from '../backends/channel-backend.ts'
import { laterOf } from '../backends/later.ts'
import { type ChannelDeclaration, validateContent } from '../channel-types.ts'
import { type Content, measureContent } from '../content.ts'
import { type Delay, isForLater, type Later, laterAt, readTime, refuseDelay } from '../delays.ts'
import { ChannelkitError, shown } from '../errors.ts'
import { channelNameFault, groupNameFault } from '../names.ts'
import type { PublishGrant } from '../publish-settings.ts'

/** One message that a program asks to have sent. */
export type PublishedMessage =
  | ({ readonly channel: string; readonly group?: undefined; readonly content: Content } & Pick<
      OutgoingMessage,
      'deliverAt' | 'id' | 'once'
    >)
  | { readonly group: string; readonly channel?: undefined; readonly content: Content }

/** A fault of one message of a list, by its place. */
export class PublishFault extends Error {
  readonly index: number
  readonly fault: ChannelkitError

  constructor(index: number, fault: ChannelkitError) {
    super(fault.message)
    this.index = index
    this.fault = fault
  }
}

const keys = ['channel', 'group', 'content', 'delayMs', 'at', 'id']

// The interface servers' own: whoever may send here cannot make up what clients did.
const reserved = /^(?:http|websocket|__channels__)\./

/** Parses the body of a request to publish: one message, or a list of them. */
export function parseBody(bytes: Uint8Array | undefined): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch (cause) {
    const reason = cause instanceof SyntaxError ? cause.message : 'it is not UTF-8'
    throw new ChannelkitError('ERR_BAD_REQUEST', `the body is not JSON: ${reason}`, { cause })
  }
}

/**
 * Checks every message before any is sent: its form, its name, whether the token may send there,
 * its time and its content.
 *
 * @throws {PublishFault} for the first that is wrong.
 */
export async function checkMessages(
  messages: readonly unknown[],
  grant: PublishGrant,
  declaration: (channel: string) => ChannelDeclaration | undefined,
  limits: BackendLimits,
): Promise<readonly PublishedMessage[]> {
  const checked: PublishedMessage[] = []
  for (const [index, message] of messages.entries()) {
    try {
      checked.push(await checkMessage(message, grant, declaration, limits))
    } catch (error) {
      throw error instanceof ChannelkitError ? new PublishFault(index, error) : error
    }
  }
  return checked
}

async function checkMessage(
  message: unknown,
  grant: PublishGrant,
  declaration: (channel: string) => ChannelDeclaration | undefined,
  limits: BackendLimits,
): Promise<PublishedMessage> {
  if (typeof message !== 'object' || message === null || Array.isArray(message)) {
    throw wrongForm(`a message is ${kindOf(message)}`)
  }
  const unknown = Object.keys(message).find((key) => !keys.includes(key))
  if (unknown !== undefined) throw wrongForm(`a message has an unknown key ${shown(unknown)}`)
  const { channel, group, content, ...delay } = message as Readonly<Record<string, unknown>>
  if ((channel === undefined) === (group === undefined)) {
    throw wrongForm(
      `a message has ${channel === undefined ? 'no' : 'a'} channel and ${group === undefined ? 'no' : 'a'} group`,
    )
  }
  const fault = channel === undefined ? groupNameFault(group) : channelNameFault(channel)
  if (fault) throw fault
  if (channel === undefined) {
    const name = group as string
    if (!grant.mayUseGroup(name)) throw forbidden(`group ${shown(name)}`)
    refuseDelay(delay)
    measureContent(content)
    return { group: name, content: content as Content }
  }
  const name = channel as string
  if (reserved.test(name) || !grant.mayUseChannel(name)) throw forbidden(`channel ${shown(name)}`)
  const later = checkedDelay(name, delay, limits)
  measureContent(content)
  return {
    channel: name,
    content: await validateContent(name, declaration(name), content as Content),
    ...later,
  }
}

/** When a message is delivered, where it says so. */
function checkedDelay(
  channel: string,
  { at, ...others }: Readonly<Record<string, unknown>>,
  limits: BackendLimits,
): Later | undefined {
  const time = typeof at === 'string' ? readTime(at) : at
  if (at !== undefined && time === undefined) {
    throw new ChannelkitError(
      'ERR_INVALID_ARGUMENT',
      `at of a message on ${channel} is ${shown(at)}; give a time like "2030-01-01T08:00:00Z", or milliseconds since the epoch`,
    )
  }
  const delay = { ...others, ...(time !== undefined && { at: time }) } as Delay
  if (!isForLater(delay)) return undefined
  const later = laterAt(channel, delay, limits.clock.now())
  laterOf({ channel, content: {}, ...later }, limits)
  return later
}

function forbidden(place: string): ChannelkitError {
  return new ChannelkitError('ERR_FORBIDDEN', `this token may not send to ${place}`)
}

function wrongForm(problem: string): ChannelkitError {
  return new ChannelkitError(
    'ERR_INVALID_ARGUMENT',
    `${problem}; send { "channel" or "group", "content" }, to a channel perhaps with "delayMs", "at" or "id"`,
  )
}

function kindOf(value: unknown): string {
  if (value === null) return 'null'
  return Array.isArray(value) ? 'a list' : `a ${typeof value}`
}
