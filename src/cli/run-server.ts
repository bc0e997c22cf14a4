import { createHttpServer } from '../server.ts'
import { announceStart } from './announce-start.ts'
import { describeBackend, loadSite, openBackends, requireMultipleProcesses } from './load-site.ts'
import type { CommonOptions, ListenOptions } from './options.ts'
import { runUntilSignal } from './run-until-signal.ts'
import { publishing, serve } from './serve.ts'

export interface RunServerOptions extends CommonOptions, ListenOptions {
  /** False with `--no-worker`. */
  readonly worker: boolean
}

/** `channelkit runserver`: HTTP, WebSocket and, unless told otherwise, a worker in one process. */
export async function runServer(options: RunServerOptions): Promise<number> {
  const loaded = await loadSite(options)
  const { site, logger } = loaded
  if (!options.worker) requireMultipleProcesses(loaded, 'default', 'runserver --no-worker')
  await openBackends(site, options.worker ? site.backendNames : ['default'])
  return runUntilSignal(logger, async () => {
    const { url, channels, stop } = await serve(createHttpServer(site.config.http), site, {
      listen: options,
      attach: { http: true, worker: options.worker },
    })
    announceStart(loaded, 'runserver', {
      listening: url,
      ...publishing(site),
      backend: describeBackend(site, 'default'),
      consuming: consuming(options, channels),
    })
    return stop
  })
}

function consuming({ worker }: RunServerOptions, channels: readonly string[]): string {
  if (!worker) return 'nothing; start channelkit runworker beside it'
  return channels.join(', ') || 'nothing; the config has neither a routing nor an app'
}
