import { constants } from 'node:os'
import type { Logger } from '../logger.ts'

/** Consumers that did not end in time. */
export type StillRunning = readonly { readonly consumer: string; readonly channel: string }[]

const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
// Channelkit's own timers keep no process alive; this one does. The longest there is.
const keepAliveMs = 2_147_483_647

/**
 * Keeps the process going until a signal asks it to end, then stops it in order. A second signal
 * ends it at once. Errors that the site's code lets go uncaught are logged and end nothing.
 *
 * @param start - begins the work and tells how to stop it, which returns the consumers that did
 *   not end in time.
 * @returns the exit code: 0, or 1 when something was still running.
 */
export async function runUntilSignal(
  logger: Logger,
  start: () => Promise<() => Promise<StillRunning>>,
): Promise<0 | 1> {
  const uncaughtCount = surviveUncaughtErrors(logger)
  const keepAlive = setInterval(() => {}, keepAliveMs)
  // Listened for from here on: one that comes while starting ends the process once it has started.
  const signalled = firstSignal()
  const stop = await start()
  const signal = await signalled
  logger.info({}, `${signal}: stopping; once more stops at once`)
  const stillRunning = await stop()
  clearInterval(keepAlive)
  for (const run of stillRunning) {
    logger.error(run, `consumer ${run.consumer} was still running on ${run.channel}; it is cut off`)
  }
  const uncaughtErrors = uncaughtCount()
  logger.info(uncaughtErrors > 0 ? { uncaughtErrors } : {}, 'stopped')
  return stillRunning.length > 0 ? 1 : 0
}

function firstSignal(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    let isStopping = false
    for (const signal of signals) {
      process.on(signal, () => {
        if (isStopping) process.exit(128 + constants.signals[signal])
        isStopping = true
        resolve(signal)
      })
    }
  })
}

function surviveUncaughtErrors(logger: Logger): () => number {
  let count = 0
  const log = (error: unknown, origin: string): void => {
    count++
    const err = error instanceof Error ? error : new Error(String(error))
    logger.error({ err, uncaughtErrors: count }, `${origin} in the site's code; going on`)
  }
  process.on('uncaughtException', (error) => log(error, 'uncaught exception'))
  process.on('unhandledRejection', (reason) => log(reason, 'unhandled rejection'))
  // console.log to a pipe that nobody reads any more.
  process.stdout.on('error', () => {})
  process.stderr.on('error', () => {})
  return () => count
}
