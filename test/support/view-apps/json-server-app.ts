import { createRequire } from 'node:module'
import type { NodeHandler } from '../../../src/view-layer/view-app.ts'

/** What of json-server is used here; it brings no types. */
interface JsonServer {
  create(): NodeHandler & { use(...handlers: unknown[]): void }
  defaults(): unknown[]
  router(data: object): unknown
  rewriter(rules: Readonly<Record<string, string>>): unknown
  readonly bodyParser: unknown
}

const jsonServer = createRequire(import.meta.url)('json-server') as JsonServer

/**
 * An app that others have written: json-server, on an Express 4 of its own, with compression, CORS,
 * a logger, static files and overridden methods.
 */
export function createJsonServerApp(): NodeHandler {
  const app = jsonServer.create()
  app.use(jsonServer.defaults())
  app.use(jsonServer.rewriter({ '/api/*': '/$1', '/blog/:resource/:id': '/:resource/:id' }))
  app.use(
    jsonServer.router({
      posts: Array.from({ length: 60 }, (_, n) => ({
        id: n + 1,
        title: `Post ${n + 1}`,
        body: 'all about channels '.repeat(20),
        views: (n * 37) % 101,
      })),
      comments: [
        { id: 1, text: 'größer', postId: 1 },
        { id: 2, text: 'second', postId: 1 },
        { id: 3, text: 'elsewhere', postId: 2 },
      ],
      profile: { name: 'Ann' },
    }),
  )
  return app
}
