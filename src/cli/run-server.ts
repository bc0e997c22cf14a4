import { createServer } from 'node:http'
import { attach } from '../server.ts'
import { announceStart } from './announce-start.ts'
import { listen } from './listen.ts'
import { describeBackend, loadSite, openBackends, requireMultipleProcesses } from './load-site.ts'
import type { CommonOptions, ListenOptions } from './options.ts'
import { runUntilSignal } from './run-until-signal.ts'

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
    const server = createServer()
    const attached = await attach(server, site, { http: true, worker: options.worker })
    const url = await listen(server, options).catch(async (error: unknown) => {
      // What the worker has taken meanwhile is not to be lost.
      await attached.close()
      throw error
    })
    announceStart(loaded, 'runserver', {
      listening: url,
      backend: describeBackend(site, 'default'),
      consuming: options.worker
        ? attached.channels
        : 'nothing; start channelkit runworker beside it',
    })
    return async () => {
      server.close()
      const { stillRunning } = await attached.close()
      server.closeAllConnections()
      await site.close()
      return stillRunning
    }
  })
}
