import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { type Consumer, consumerName, nameConsumer } from './consumer.ts'
import { ChannelkitError, shown } from './errors.ts'
import type { Message } from './message.ts'
import { workChannelNameFault } from './names.ts'

/** Where a consumer is exported: `'./consumers.ts#wsAdd'`, relative to the site's root folder. */
export type ConsumerReference = `${string}#${string}`

/** A consumer of the channel `Name`, or where to find it. */
export type Route<Name extends string> = Consumer<Message<Name>> | ConsumerReference

/** A table from channel name to consumer, made by {@link defineRouting}. */
export interface Routing {
  readonly routes: ReadonlyMap<string, Consumer<never> | ConsumerReference>
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
    if (!isRoute(route)) {
      throw new ChannelkitError(
        'ERR_INVALID_CONFIG',
        `the route of channel ${channel} is ${shown(route)}; give a function or './file.ts#name'`,
      )
    }
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
  return { routes }
}

/** A routing whose references are loaded: what a worker runs. */
export type LoadedRouting = ReadonlyMap<string, Consumer>

/**
 * Loads every reference of a routing.
 *
 * @param root - the folder that references start from.
 * @throws {ChannelkitError} `ERR_CONSUMER_NOT_FOUND` naming channel, reference and what the file
 *   exports instead; the file's own error as `cause` when loading it fails.
 */
export async function loadRouting(routing: Routing, root: string): Promise<LoadedRouting> {
  const loaded = new Map<string, Consumer>()
  for (const [channel, route] of routing.routes) {
    const consumer =
      typeof route === 'string'
        ? nameConsumer(await loadConsumer(channel, route, root), route)
        : route
    loaded.set(channel, consumer as Consumer)
  }
  return loaded
}

/**
 * Loads the export that a reference `'./file.ts#name'` names.
 *
 * @param what - what the reference is for, to begin the error's message with.
 * @throws {ChannelkitError} `ERR_CONSUMER_NOT_FOUND`
 */
export async function loadReference(
  what: string,
  reference: string,
  root: string,
): Promise<unknown> {
  const mark = reference.lastIndexOf('#')
  const [file, name] = [reference.slice(0, mark), reference.slice(mark + 1)]
  const path = resolve(root, file)
  if (!existsSync(path)) {
    throw new ChannelkitError(
      'ERR_CONSUMER_NOT_FOUND',
      `${what} points to ${shown(reference)}, and there is no file ${path}; references start from the folder of the config file`,
    )
  }
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
