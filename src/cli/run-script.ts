import { once } from 'node:events'
import { statSync } from 'node:fs'
import { constants } from 'node:os'
import { dirname, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import type { Site } from '../site.ts'
import { CliError } from './cli-error.ts'
import { loadSite } from './load-site.ts'
import type { CommonOptions } from './options.ts'
import { placeOfFault } from './place-of-fault.ts'

export type RunScriptOptions = CommonOptions

const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
// How long backends may take to close behind a script that has ended.
const closeMs = 5_000

/** How a script ended. */
interface Outcome {
  readonly exitCode: number
  readonly error?: unknown
  /** Whether it may have begun what nobody awaits: it has no function of which that is known. */
  readonly mayGoOn?: boolean
}

/**
 * `channelkit run`: loads the site and then a script, calls the function it exports as default with
 * its arguments and the site, and closes the site.
 *
 * @returns `process.exitCode` where the script has set it, 1 for an error, 128 and the signal's
 *   number for a signal.
 */
export async function runScript(
  script: string,
  given: readonly string[],
  options: RunScriptOptions,
): Promise<number> {
  const file = resolve(script)
  if (!statSync(file, { throwIfNoEntry: false })?.isFile()) {
    throw new CliError(`there is no script ${file}`, {
      hint: 'check the path, which starts from the working directory',
      exitCode: 2,
    })
  }
  const args = given[0] === '--' ? given.slice(1) : given
  const { site, logger } = await loadSite(options, {}, process.stderr, dirname(file))
  process.argv = [process.argv[0] ?? '', file, ...args]
  const before = process.getActiveResourcesInfo()
  const { exitCode, error, mayGoOn } = await Promise.race([
    execute(file, args, site),
    firstUncaughtError(),
    firstSignal(),
  ])
  if (error !== undefined) process.stderr.write(`${describe(file, error)}\n`)
  const closed = site.close().then(
    () => true,
    (fault: unknown) => {
      logger.error({ err: fault }, 'the site could not be closed')
      return true
    },
  )
  if (!(await Promise.race([closed, sleep(closeMs, false, { ref: false })]))) {
    logger.warn({}, `channel backends are not closed within ${closeMs / 1_000} s; they are left`)
  }
  await flushed()
  const left = mayGoOn ? await newResources(before) : []
  if (left.length > 0) {
    logger.warn(
      { left },
      'the script left something under way, which ends now; await it, or export a default function that does',
    )
  }
  return exitCode
}

/** What keeps the process alive besides what did `before`: timers, sockets, by their kinds. */
async function newResources(before: readonly string[]): Promise<readonly string[]> {
  // Connections that were closed are gone in the next turn.
  await new Promise(setImmediate)
  const known = [...before]
  return process.getActiveResourcesInfo().filter((kind) => {
    const index = known.indexOf(kind)
    if (index !== -1) known.splice(index, 1)
    return index === -1
  })
}

async function execute(file: string, args: readonly string[], site: Site): Promise<Outcome> {
  try {
    const { default: main } = await import(pathToFileURL(file).href)
    const hasMain = typeof main === 'function'
    if (hasMain) await main(args, site)
    return { exitCode: Number(process.exitCode ?? 0), mayGoOn: !hasMain }
  } catch (error) {
    return { exitCode: 1, error }
  }
}

/** One that the script let go, in a callback or a promise that nobody awaits. */
function firstUncaughtError(): Promise<Outcome> {
  return new Promise((resolve) => {
    process.on('uncaughtException', (error) => resolve({ exitCode: 1, error }))
  })
}

/** A signal for which the script has no listener of its own; a second one ends the process. */
function firstSignal(): Promise<Outcome> {
  return new Promise((resolve) => {
    let isStopping = false
    for (const signal of signals) {
      process.on(signal, () => {
        if (process.listenerCount(signal) > 1) return
        const exitCode = 128 + constants.signals[signal]
        if (isStopping) process.exit(exitCode)
        isStopping = true
        resolve({ exitCode })
      })
    }
  })
}

/** An error with its stack and those of its causes, and the place that a stack may lack. */
function describe(file: string, error: unknown): string {
  if (!(error instanceof Error)) return `${file} threw ${String(error)}`
  const place = error instanceof SyntaxError ? `${placeOfFault(file, error)}: ` : ''
  return `${place}${stacks(error)}`
}

function stacks(error: Error): string {
  const causes = error.cause instanceof Error ? `\ncaused by ${stacks(error.cause)}` : ''
  return `${error.stack ?? error.message}${causes}`
}

/** What the script has printed into a pipe may still be on its way. */
async function flushed(): Promise<void> {
  for (const stream of [process.stdout, process.stderr]) {
    if (stream.writableLength > 0 && !stream.destroyed) {
      await Promise.race([once(stream, 'drain'), once(stream, 'close')]).catch(() => {})
    }
  }
}
