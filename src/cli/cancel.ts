import { Channel } from '../channel.ts'
import { describeBackend } from './load-site.ts'
import { type BackendCommandOptions, printJson, withSharedBackend } from './shared-backend.ts'

/**
 * `channelkit cancel`: takes back a message for later.
 *
 * @returns 1 when it does not wait: it was delivered already, or is not known.
 */
export function cancel(name: string, id: string, options: BackendCommandOptions): Promise<number> {
  const { channelBackend } = options
  const channel = Channel(name, { backend: channelBackend })
  return withSharedBackend(options, 'cancel', async (_backend, { site }) => {
    const cancelled = await channel.cancel(id)
    if (options.json) {
      printJson({ channel: name, channelBackend, id, cancelled })
    } else {
      const place = `channel backend ${channelBackend} (${describeBackend(site, channelBackend)})`
      const outcome = cancelled ? `cancelled ${id}` : `there is no ${id} for later`
      process.stdout.write(`${outcome} on channel ${name} of ${place}\n`)
    }
    return cancelled ? 0 : 1
  })
}
