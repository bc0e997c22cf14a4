import type { IncomingMessage, ServerResponse } from 'node:http'
import { ChannelkitError, shown } from '../errors.ts'
import type { FetchApp } from './fetch-app.ts'

/** A handler of Node's own requests: an Express app, Koa's `app.callback()`, a plain function. */
export type NodeHandler = (request: IncomingMessage, response: ServerResponse) => unknown

/** An app that gives a handler of Node's requests: Fastify's instance, Koa's app. */
export type NodeApp =
  | { readonly routing: NodeHandler; readonly ready: (...args: never[]) => unknown }
  | { readonly callback: () => NodeHandler }

/** The site's web app, or a function without parameters that imports it. */
export type ViewApp = FetchApp | NodeApp | NodeHandler | (() => Promise<unknown>)

/** What was found to be the site's app. */
export type FoundApp =
  | { readonly kind: 'fetch'; readonly fetch: (request: Request) => unknown }
  | { readonly kind: 'node'; readonly handle: NodeHandler }

/**
 * Finds out what kind of app a config names, and makes it ready.
 *
 * @throws {ChannelkitError} `ERR_INVALID_CONFIG` when it is none.
 */
export async function findApp(app: unknown): Promise<FoundApp> {
  const known = await knownApp(app)
  if (known) return known
  // An app takes a request; what takes nothing gives the app.
  if (typeof app === 'function' && app.length === 0) {
    const loaded: unknown = await app()
    const inner = (await knownApp(loaded)) ?? (await exportedApp(loaded))
    if (inner) return inner
    throw notAnApp(`the function app gives ${described(loaded)}`)
  }
  if (typeof app === 'function' && app.length >= 2) {
    return { kind: 'node', handle: app as NodeHandler }
  }
  const exported = await exportedApp(app)
  if (exported) return exported
  throw notAnApp(`app is ${described(app)}`)
}

async function knownApp(app: unknown): Promise<FoundApp | undefined> {
  if ((typeof app !== 'object' && typeof app !== 'function') || app === null) return undefined
  if ('fetch' in app && typeof app.fetch === 'function') {
    // As a method, since some apps' fetch needs its `this`.
    const fetchApp = app as FetchApp
    return { kind: 'fetch', fetch: (request) => fetchApp.fetch(request) }
  }
  if (
    'routing' in app &&
    typeof app.routing === 'function' &&
    'ready' in app &&
    typeof app.ready === 'function'
  ) {
    await app.ready()
    return { kind: 'node', handle: app.routing as NodeHandler }
  }
  if ('callback' in app && typeof app.callback === 'function' && 'middleware' in app) {
    return { kind: 'node', handle: app.callback() as NodeHandler }
  }
  return undefined
}

/** The app among a module's exports. */
async function exportedApp(exports: unknown): Promise<FoundApp | undefined> {
  if (typeof exports === 'function') {
    return exports.length >= 2 ? { kind: 'node', handle: exports as NodeHandler } : undefined
  }
  if (typeof exports !== 'object' || exports === null) return undefined
  for (const name of ['default', 'app']) {
    const found: unknown = (exports as Record<string, unknown>)[name]
    if (found === undefined || found === exports) continue
    const known = await knownApp(found)
    if (known) return known
    if (typeof found === 'function' && found.length >= 2) {
      return { kind: 'node', handle: found as NodeHandler }
    }
  }
  return undefined
}

function described(value: unknown): string {
  if (typeof value === 'function') {
    const name = value.name === '' ? '' : ` ${value.name}`
    return `a function${name} of ${value.length} ${value.length === 1 ? 'parameter' : 'parameters'}`
  }
  if (typeof value === 'object' && value !== null) {
    return `an object with ${Object.keys(value).sort().slice(0, 8).join(', ') || 'nothing in it'}`
  }
  return shown(value)
}

function notAnApp(what: string): ChannelkitError {
  return new ChannelkitError(
    'ERR_INVALID_CONFIG',
    `${what}; give an app with fetch(request), like Hono's, a handler (req, res), like Express's, an app of Fastify or Koa, or () => import('./app.ts') that exports one`,
  )
}
