import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { type Consumer, consumerName, nameConsumer, wrapConsumer } from './consumer.ts'
import type { Content } from './content.ts'
import { ChannelkitError, shown } from './errors.ts'
import type { Message } from './message.ts'
import { workChannelNameFault } from './names.ts'
import {
  compileFilter,
  type FilterMatch,
  type PathParams,
  type RouteFilter,
} from './route-filter.ts'
import { enableTypeScript } from './typescript.ts'

/** Where a consumer is exported: `'./consumers.ts#wsAdd'`, relative to the site's root folder. */
export type ConsumerReference = `${string}#${string}`

/** A consumer of the channel `Name`, or where to find it. */
export type Route<Name extends string> = Consumer<Message<Name>> | ConsumerReference

/** A table from channel name to consumer, made by {@link defineRouting}. */
export interface Routing {
  readonly routes: ReadonlyMap<string, Consumer<never> | ConsumerReference>
  /** Routes that take only some messages of their channel, in the order in which they are tried. */
  readonly filtered: readonly FilteredRoute[]
}

/** A route that takes the messages all of its filters let through. */
export interface FilteredRoute {
  readonly channel: string
  readonly filters: readonly FilterMatch[]
  readonly route: Consumer<never> | ConsumerReference
}

/** A message that came by a filtered route. */
export type RoutedMessage<Name extends string, Path> = Message<Name> & {
  /** What the named parts of the filters matched. */
  readonly params: PathParams<Path>
}

/**
 * Routes those messages of a channel that a filter lets through; the first such route wins. What
 * none takes goes to the channel's own consumer, or the site's app.
 *
 * @example
 * ```ts
 * export const channelRouting = defineRouting(
 *   { 'websocket.disconnect': wsLeave },
 *   route('http.request', { path: '/hello', method: 'GET' }, hello),
 *   route('websocket.connect', { path: '/rooms/:room' }, async (message) => {
 *     await Group(message.params.room).add(message.replyChannel)
 *   }),
 * )
 * ```
 * @throws {ChannelkitError} `ERR_INVALID_NAME`; `ERR_INVALID_CONFIG` for a filter whose groups
 *   have no names.
 */
export function route<const Name extends string, const Filter extends RouteFilter>(
  channel: Name,
  filter: Filter,
  consumer: Consumer<RoutedMessage<Name, Filter['path']>> | ConsumerReference,
): Routing {
  const fault = workChannelNameFault(channel)
  if (fault) throw fault
  checkRoute(channel, consumer)
  const filtered = { channel, filters: [compileFilter(filter, false)], route: consumer }
  return { routes: new Map(), filtered: [filtered] }
}

/**
 * Takes in a routing for the messages that a filter lets through. Its `path` is a prefix, which
 * the routing's own filters do not see; `params` of both come together.
 *
 * @example
 * ```ts
 * defineRouting({}, include(liveblogRouting, { path: '/liveblog' }))
 * ```
 * @throws {ChannelkitError} `ERR_INVALID_CONFIG`
 */
export function include(routing: Routing, filter: RouteFilter = {}): Routing {
  const match = compileFilter(filter, true)
  const filtered = [
    ...routing.filtered.map((each) => ({ ...each, filters: [match, ...each.filters] })),
    ...[...routing.routes].map(([channel, each]) => ({ channel, filters: [match], route: each })),
  ]
  return { routes: new Map(), filtered }
}

type RoutingTable<Names extends string> = { readonly [Name in Names]: Route<Name> }

/**
 * Makes a routing from a table, and from further routings to take in.
 *
 * @example
 * ```ts
 * export const channelRouting = defineRouting({
 *   'websocket.connect': wsAdd,
 *   'websocket.receive': './consumers.ts#wsMessage',
 * })
 * ```
 * @throws {ChannelkitError} `ERR_INVALID_NAME`; `ERR_DUPLICATE_CONSUMER` naming both consumers of
 *   a channel; `ERR_INVALID_CONFIG` for a route that is neither function nor reference.
 */
export function defineRouting<Names extends string>(
  table: RoutingTable<Names>,
  ...include: readonly Routing[]
): Routing {
  const routes = new Map<string, Consumer<never> | ConsumerReference>()
  const add = (channel: string, route: unknown): void => {
    const fault = workChannelNameFault(channel)
    if (fault) throw fault
    checkRoute(channel, route)
    const other = routes.get(channel)
    if (other !== undefined) {
      throw new ChannelkitError(
        'ERR_DUPLICATE_CONSUMER',
        `channel ${channel} has two consumers, ${routeName(other)} and ${routeName(route)}; a channel has one, so let one call the other`,
      )
    }
    routes.set(channel, route)
  }
  for (const [channel, route] of Object.entries(table)) add(channel, route)
  for (const routing of include) for (const [channel, route] of routing.routes) add(channel, route)
  return { routes, filtered: include.flatMap(({ filtered }) => filtered) }
}

function checkRoute(
  channel: string,
  route: unknown,
): asserts route is Consumer<never> | ConsumerReference {
  if (isRoute(route)) return
  throw new ChannelkitError(
    'ERR_INVALID_CONFIG',
    `the route of channel ${channel} is ${shown(route)}; give a function or './file.ts#name'`,
  )
}

/** A routing whose references are loaded: what a worker runs. */
export type LoadedRouting = ReadonlyMap<string, Consumer>

/**
 * Loads every reference of a routing.
 *
 * @param root - the folder that references start from.
 * @param rest - consumers of channels that the routing has none for.
 * @throws {ChannelkitError} `ERR_CONSUMER_NOT_FOUND` naming channel, reference and what the file
 *   exports instead; the file's own error as `cause` when loading it fails.
 */
export async function loadRouting(
  routing: Routing,
  root: string,
  rest: LoadedRouting = new Map(),
): Promise<LoadedRouting> {
  const load = async (
    channel: string,
    route: Consumer<never> | ConsumerReference,
  ): Promise<Consumer> =>
    typeof route === 'string'
      ? nameConsumer(await loadConsumer(channel, route, root), route)
      : (route as Consumer)
  const loaded = new Map(rest)
  for (const [channel, route] of routing.routes) loaded.set(channel, await load(channel, route))
  const choices = new Map<string, Choice[]>()
  for (const { channel, filters, route } of routing.filtered) {
    const list = choices.get(channel) ?? []
    list.push({ filters, consumer: await load(channel, route) })
    choices.set(channel, list)
  }
  for (const [channel, list] of choices) {
    loaded.set(channel, choosing(channel, list, loaded.get(channel)))
  }
  return loaded
}

interface Choice {
  readonly filters: readonly FilterMatch[]
  readonly consumer: Consumer
}

/** The consumer of a channel with filtered routes. */
function choosing(
  channel: string,
  choices: readonly Choice[],
  otherwise: Consumer = refuseUnrouted,
): Consumer {
  const consumer: Consumer = (message) => {
    for (const choice of choices) {
      const params = paramsOf(choice.filters, message.content)
      if (params) return choice.consumer(Object.assign(message, { params }))
    }
    return otherwise(message)
  }
  // A line has to know of a message before its content is looked at: one marks them all.
  for (const inner of [otherwise, ...choices.map((choice) => choice.consumer)]) {
    wrapConsumer(consumer, inner)
  }
  const names = choices.map((choice) => consumerName(choice.consumer))
  return nameConsumer(consumer, `routes of ${channel} to ${names.join(', ')}`.slice(0, 200))
}

function paramsOf(
  filters: readonly FilterMatch[],
  content: Content,
): Readonly<Record<string, string>> | undefined {
  let path = typeof content.path === 'string' ? content.path : undefined
  let params: Readonly<Record<string, string>> = {}
  for (const filter of filters) {
    const match = filter(content, path)
    if (!match) return undefined
    params = { ...params, ...match.params }
    if (path !== undefined) path = match.rest
  }
  return params
}

/** What becomes of a message that no route takes: its client is told, where it waits for an answer. */
const refuseUnrouted: Consumer = async (message) => {
  if (!message.hasReplyChannel) return
  if (message.channel === 'http.request') {
    await message.replyChannel.send({
      status: 404,
      content_type: 'text/plain; charset=utf-8',
      content: 'Not Found',
    })
  } else if (message.channel === 'websocket.connect') {
    await message.replyChannel.send({ accept: false, close: 4404, reason: 'no such path' })
  }
}

/**
 * Loads the export that a reference `'./file.ts#name'` names.
 *
 * @param what - what the reference is for, to begin the error's message with.
 * @throws {ChannelkitError} `ERR_CONSUMER_NOT_FOUND`, `ERR_INVALID_CONFIG`
 */
export async function loadReference(
  what: string,
  reference: string,
  root: string,
): Promise<unknown> {
  const mark = reference.lastIndexOf('#')
  if (mark < 1 || mark === reference.length - 1) {
    throw new ChannelkitError(
      'ERR_INVALID_CONFIG',
      `${what} is ${shown(reference)}, which names no ${mark === 0 ? 'file' : 'export'}; write both its file and its export, like './routing.ts#channelRouting'`,
    )
  }
  const [file, name] = [reference.slice(0, mark), reference.slice(mark + 1)]
  const path = resolve(root, file)
  if (!existsSync(path)) {
    throw new ChannelkitError(
      'ERR_CONSUMER_NOT_FOUND',
      `${what} points to ${shown(reference)}, and there is no file ${path}; references start from ${resolve(root)}, the folder of the config file or the root given to setup`,
    )
  }
  await enableTypeScript(root)
  let exports: Record<string, unknown>
  try {
    exports = await import(pathToFileURL(path).href)
  } catch (cause) {
    const reason = cause instanceof Error ? `${cause.name}: ${cause.message}` : String(cause)
    throw new ChannelkitError(
      'ERR_CONSUMER_NOT_FOUND',
      `${what} points to ${shown(reference)}, and ${path} cannot be loaded; ${reason}`,
      { cause },
    )
  }
  if (Object.hasOwn(exports, name)) return exports[name]
  const offered = Object.keys(exports)
    .filter((key) => key !== 'module.exports')
    .sort()
  throw new ChannelkitError(
    'ERR_CONSUMER_NOT_FOUND',
    `${what} points to ${shown(reference)}, and ${file} has no export ${shown(name)}; it exports ${offered.join(', ') || 'nothing'}`,
  )
}

async function loadConsumer(
  channel: string,
  reference: ConsumerReference,
  root: string,
): Promise<Consumer> {
  const found = await loadReference(`the route of channel ${channel}`, reference, root)
  if (typeof found === 'function') return found as Consumer
  throw new ChannelkitError(
    'ERR_CONSUMER_NOT_FOUND',
    `the route of channel ${channel} points to ${shown(reference)}, which is ${shown(found)}; export a function`,
  )
}

function isRoute(route: unknown): route is Consumer<never> | ConsumerReference {
  return typeof route === 'function' || (typeof route === 'string' && /^.+#.+$/.test(route))
}

function routeName(route: Consumer<never> | ConsumerReference): string {
  return typeof route === 'string' ? route : consumerName(route)
}
