import { announceStart } from './announce-start.ts'
import { describeBackend, loadSite, openBackends, requireMultipleProcesses } from './load-site.ts'
import type { CommonOptions } from './options.ts'
import { runUntilSignal } from './run-until-signal.ts'

export interface RunWorkerOptions extends CommonOptions {
  readonly concurrency?: number
  readonly channelBackend: string
}

/** `channelkit runworker`: runs consumers; start as many as there is work for. */
export async function runWorker(options: RunWorkerOptions): Promise<number> {
  const { concurrency, channelBackend: name } = options
  const loaded = await loadSite(options, concurrency === undefined ? {} : { concurrency })
  const { site, logger } = loaded
  requireMultipleProcesses(loaded, name, 'runworker')
  await openBackends(site, [name])
  return runUntilSignal(logger, async () => {
    const worker = await site.worker(name)
    const { channels } = worker
    await worker.start()
    announceStart(loaded, 'runworker', {
      backend: describeBackend(site, name),
      consuming: channels.length > 0 ? channels : 'nothing; the routing is empty',
    })
    return async () => {
      const stillRunning = await worker.stop()
      await site.close()
      return stillRunning
    }
  })
}
