import type { ChannelBackend } from '../backends/channel-backend.ts'
import { type LoadedSite, loadSite, openBackends, requireMultipleProcesses } from './load-site.ts'
import type { CommonOptions } from './options.ts'

/** What a command takes that looks into a backend. */
export interface BackendCommandOptions extends CommonOptions {
  readonly channelBackend: string
  readonly json?: boolean
}

/** Runs `work` on a backend that other processes reach, and closes it. Logs go to standard error. */
export async function withSharedBackend(
  options: BackendCommandOptions,
  command: string,
  work: (backend: ChannelBackend, loaded: LoadedSite) => Promise<number>,
): Promise<number> {
  const { channelBackend: name } = options
  const loaded = await loadSite(options, {}, process.stderr)
  try {
    requireMultipleProcesses(loaded, name, command)
    await openBackends(loaded.site, [name])
    return await work(loaded.site.backend(name), loaded)
  } finally {
    await loaded.site.close()
  }
}

/** Prints rows for a program: a JSON list. */
export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, undefined, 2)}\n`)
}
