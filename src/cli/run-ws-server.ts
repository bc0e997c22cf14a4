import type { ServerResponse } from 'node:http'
import { createHttpServer } from '../server.ts'
import { announceStart } from './announce-start.ts'
import { describeBackend, loadSite, openBackends, requireMultipleProcesses } from './load-site.ts'
import type { CommonOptions, ListenOptions } from './options.ts'
import { runUntilSignal } from './run-until-signal.ts'
import { publishing, serve } from './serve.ts'

export interface RunWebSocketServerOptions extends CommonOptions, ListenOptions {
  /** Serves HTTP through channels too. */
  readonly acceptAll?: boolean
}

/** `channelkit runwsserver`: WebSockets alone, beside a web server that serves the pages. */
export async function runWebSocketServer(options: RunWebSocketServerOptions): Promise<number> {
  const loaded = await loadSite(options)
  const { site, logger } = loaded
  const { acceptAll = false } = options
  requireMultipleProcesses(loaded, 'default', 'runwsserver')
  await openBackends(site, ['default'])
  return runUntilSignal(logger, async () => {
    const server = createHttpServer(site.config.http)
    const { url, stop } = await serve(server, site, {
      listen: options,
      attach: { http: acceptAll },
      ...(!acceptAll && { refuse: refuseHttp }),
    })
    announceStart(loaded, 'runwsserver', {
      listening: url.replace(/^http:/, 'ws:'),
      serving: acceptAll ? 'WebSocket and HTTP' : 'WebSocket',
      ...publishing(site),
      backend: describeBackend(site, 'default'),
    })
    return stop
  })
}

/** RFC 9110 section 15.5.22: the answer names the protocol that is spoken here. */
function refuseHttp(response: ServerResponse): void {
  response.writeHead(426, {
    upgrade: 'websocket',
    connection: 'upgrade, close',
    'content-type': 'text/plain; charset=utf-8',
  })
  response.end(
    'Here are WebSockets only. Pages are served elsewhere; or start with --accept-all.\n',
  )
}
