import type { Server } from 'node:http'
import { type AttachOptions, attach } from '../server.ts'
import type { Site } from '../site.ts'
import { listen } from './listen.ts'
import type { ListenOptions } from './options.ts'
import type { StillRunning } from './run-until-signal.ts'

/** A server at work. */
export interface Serving {
  /** Where it listens. */
  readonly url: string
  /** The channels its worker consumes. */
  readonly channels: readonly string[]
  /** Stops accepting, answers what is under way, and closes the site. */
  stop(): Promise<StillRunning>
}

/** Attaches interface servers to `server` and makes it listen. */
export async function serve(
  server: Server,
  site: Site,
  options: { readonly listen: ListenOptions; readonly attach: AttachOptions },
): Promise<Serving> {
  const attached = await attach(server, site, options.attach)
  const url = await listen(server, options.listen).catch(async (error: unknown) => {
    // What the worker has taken meanwhile is not to be lost.
    await attached.close()
    throw error
  })
  return {
    url,
    channels: attached.channels,
    async stop() {
      server.close()
      const { stillRunning } = await attached.close()
      server.closeAllConnections()
      await site.close()
      return stillRunning
    },
  }
}
