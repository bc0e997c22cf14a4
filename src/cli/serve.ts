import type { Server, ServerResponse } from 'node:http'
import { resolvePublishSettings } from '../publish-settings.ts'
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
  options: {
    readonly listen: ListenOptions
    readonly attach: AttachOptions
    /** Answers requests that nobody here serves. */
    readonly refuse?: (response: ServerResponse) => void
  },
): Promise<Serving> {
  const attached = await attach(server, site, options.attach)
  const { refuse } = options
  if (refuse) {
    server.on('request', (request, response) => {
      if (!attached.handlePublish(request, response)) refuse(response)
    })
  }
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

/** What is told of the publish endpoint, where there is one. */
export function publishing({ config: { publish } }: Site): { readonly publishing?: string } {
  return publish ? { publishing: `by POST ${resolvePublishSettings(publish).path}` } : {}
}
