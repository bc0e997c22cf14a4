import type { StandardSchemaV1 } from '@standard-schema/spec'
import type { Content } from './content.ts'
import { afterRunOf, type ChannelDelivery } from './delivery.ts'
import { ChannelkitError, shown } from './errors.ts'
import type { BuiltInChannels, HttpResponse, WebSocketReply } from './message-formats.ts'
import { workChannelNameFault } from './names.ts'

/** What a site says of one of its channels. */
export interface ChannelDeclaration<C extends Content = Content> extends ChannelDelivery {
  /** Checks content when it is sent; its output is what travels. Any Standard Schema library will do. */
  readonly schema?: StandardSchemaV1<unknown, C>
  /** Carries the type where there is no schema; never read. */
  readonly '~content'?: C
}

/** Channel name → declaration, made by {@link defineChannels}. */
export type ChannelDeclarations = Readonly<Record<string, ChannelDeclaration>>

/**
 * Declares the site's own channels once, for the compiler and for run-time checks.
 *
 * @example
 * ```ts
 * export const channels = defineChannels({
 *   'chat-messages': content<{ room: string; message: string }>(),
 *   orders: { schema: z.object({ id: z.number() }), acknowledge: 'afterRun' },
 * })
 * declare module 'channelkit' {
 *   interface Register { channels: typeof channels }
 * }
 * ```
 * @throws {ChannelkitError} `ERR_INVALID_NAME`, `ERR_INVALID_CONFIG`
 */
export function defineChannels<const T extends ChannelDeclarations>(declarations: T): T {
  for (const [name, declaration] of Object.entries(declarations)) {
    const fault = workChannelNameFault(name)
    if (fault) throw fault
    afterRunOf(name, declaration)
  }
  return declarations
}

/** A declaration by type alone, without a check of content at run time. */
export function content<C extends Content>(delivery: ChannelDelivery = {}): ChannelDeclaration<C> {
  return { ...delivery }
}

/**
 * Where a site tells the compiler its declarations:
 * `declare module 'channelkit' { interface Register { channels: typeof channels } }`.
 */
// biome-ignore lint/suspicious/noEmptyInterface: sites add `channels` to it by declaration merging.
export interface Register {}

type ContentOfDeclaration<D> = D extends { readonly schema: StandardSchemaV1<unknown, infer C> }
  ? C
  : D extends ChannelDeclaration<infer C>
    ? C
    : Content

type DeclaredChannels = Register extends { readonly channels: infer T }
  ? { [Name in keyof T]: ContentOfDeclaration<T[Name]> }
  : unknown

/** The content of the channel `Name`: declared, built in, or any. */
export type ContentOf<Name extends string> = string extends Name
  ? Content
  : Name extends keyof DeclaredChannels
    ? DeclaredChannels[Name]
    : Name extends keyof BuiltInChannels
      ? BuiltInChannels[Name]
      : Content

/** What may be answered to a message of the channel `Name`. */
export type ReplyOf<Name extends string> = string extends Name
  ? Content
  : Name extends `websocket.${string}`
    ? WebSocketReply
    : Name extends 'http.request'
      ? HttpResponse
      : Content

/**
 * Checks `value` against the declaration of `channel`, if it has a schema.
 *
 * @returns the schema's output.
 * @throws {ChannelkitError} `ERR_INVALID_CONTENT` naming the channel and the first issues.
 */
export function validateContent<C extends Content>(
  channel: string,
  declaration: ChannelDeclaration | undefined,
  value: C,
): C | Promise<C> {
  if (!declaration?.schema) return value
  const result = declaration.schema['~standard'].validate(value)
  return result instanceof Promise
    ? result.then((settled) => outcome(channel, settled) as C)
    : (outcome(channel, result) as C)
}

function outcome(channel: string, result: StandardSchemaV1.Result<Content>): Content {
  if (!result.issues) return result.value
  const issues = result.issues.slice(0, 3).map(({ message, path }) => {
    const place = (path ?? []).map((part) => String(typeof part === 'object' ? part.key : part))
    return place.length > 0 ? `${place.join('.')}: ${message}` : message
  })
  throw new ChannelkitError(
    'ERR_INVALID_CONTENT',
    `content of channel ${shown(channel)} does not fit its schema; ${issues.join('; ')}`,
  )
}
