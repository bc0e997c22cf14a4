import type { IncomingMessage, ServerResponse } from 'node:http'

/** An app in the fetch style: Hono and most newer frameworks. */
export interface FetchApp {
  fetch(request: Request): Response | Promise<Response>
}

/** A handler of Node's own requests: Express, Koa's `app.callback()`, a plain function. */
export type NodeHandler = (request: IncomingMessage, response: ServerResponse) => unknown

/** The site's web app, or a function without parameters that imports it. */
export type ViewApp = FetchApp | NodeHandler | (() => Promise<unknown>)
