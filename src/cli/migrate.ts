import type { ChannelBackend } from '../backends/channel-backend.ts'
import { isChannelkitError } from '../errors.ts'
import { CliError } from './cli-error.ts'
import { describeError } from './describe-error.ts'
import { describeBackend, loadSite } from './load-site.ts'
import type { CommonOptions } from './options.ts'

/** `channelkit migrate`: makes the tables of every backend that has some, or brings them up to date. */
export async function migrate(options: CommonOptions): Promise<number> {
  const { site } = await loadSite(options)
  try {
    for (const name of site.backendNames) {
      const backend = site.backend(name)
      const title = `channel backend ${name} (${describeBackend(site, name)})`
      if (!hasTables(backend)) {
        process.stdout.write(`${title}: has no tables\n`)
        continue
      }
      try {
        await backend.migrate()
      } catch (cause) {
        if (isChannelkitError(cause) && cause.category === 'programmer') throw cause
        const { line, hint } = describeError(cause)
        throw new CliError(`channel backend ${name}: ${line}`, { hint, exitCode: 1, cause })
      }
      process.stdout.write(`${title}: its tables are up to date\n`)
    }
    return 0
  } finally {
    await site.close()
  }
}

function hasTables(
  backend: ChannelBackend,
): backend is ChannelBackend & { migrate(): Promise<void> } {
  return 'migrate' in backend && typeof backend.migrate === 'function'
}
