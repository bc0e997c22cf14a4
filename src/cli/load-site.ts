import { loadConfigFile } from '../config-file.ts'
import { isChannelkitError } from '../errors.ts'
import { withoutPassword } from '../internal/without-password.ts'
import type { Logger } from '../logger.ts'
import { type Site, setup } from '../site.ts'
import type { WorkerSettings } from '../worker.ts'
import { CliError } from './cli-error.ts'
import { createLogger, logFormat } from './create-logger.ts'
import { describeError } from './describe-error.ts'
import type { CommonOptions } from './options.ts'

/** A site as a command runs it. */
export interface LoadedSite {
  readonly site: Site
  readonly configPath: string
  readonly logger: Logger
  readonly logFormat: 'human' | 'json'
}

/**
 * Loads the config file and sets its site up, without connecting a backend yet.
 *
 * @param workerSettings - what the command line says of workers, above what the config says.
 * @param logTo - where its lines go; standard error leaves the output to the command.
 * @param from - the folder from which on upwards the config file is looked for.
 */
export async function loadSite(
  options: CommonOptions,
  workerSettings: WorkerSettings = {},
  logTo: typeof process.stdout | typeof process.stderr = process.stdout,
  from?: string,
): Promise<LoadedSite> {
  const { config, root, path } = await loadConfigFile(options.config, from)
  const isProduction = (config.mode ?? process.env.NODE_ENV) === 'production'
  const logger = createLogger(options, { isProduction, stream: logTo })
  const site = await setup(
    { ...config, worker: { ...config.worker, ...workerSettings } },
    { root, logger },
  )
  return { site, configPath: path, logger, logFormat: logFormat(options, isProduction) }
}

/** Connects backends, so that what is wrong with them shows before anything listens. */
export async function openBackends(site: Site, names: readonly string[]): Promise<void> {
  for (const name of names) {
    try {
      await site.backend(name).open()
    } catch (cause) {
      if (isChannelkitError(cause) && cause.category === 'programmer') throw cause
      const { line, hint } = describeError(cause)
      throw new CliError(`channel backend ${name}: ${line}`, { hint, exitCode: 1, cause })
    }
  }
}

/** Refuses a backend that messages of another process cannot reach. */
export function requireMultipleProcesses(
  { site, configPath }: LoadedSite,
  name: string,
  command: string,
): void {
  if (site.backend(name).supports.multipleProcesses) return
  throw new CliError(
    `${command} works together with other processes, and channel backend ${name} (${describeBackend(site, name)}) stays inside one`,
    {
      hint: `write channelBackends: { ${name}: { backend: 'sqlite:.channelkit/channels.sqlite' } } in ${configPath}, or use channelkit runserver alone`,
      exitCode: 2,
    },
  )
}

/** What a config says of a backend, without its password. */
export function describeBackend(site: Site, name: string): string {
  const choice = site.config.channelBackends?.[name]?.backend
  if (choice === undefined) return 'sqlite:.channelkit/channels.sqlite'
  return typeof choice === 'string' ? withoutPassword(choice) : site.backend(name).constructor.name
}
