import type { ChannelBackend } from './backends/channel-backend.ts'
import type { ChannelDeclaration } from './channel-types.ts'
import { ChannelkitError } from './errors.ts'
import type { Logger } from './logger.ts'
import type { SiteSessions } from './sessions/site-sessions.ts'

/** What `Channel`, `Group` and the session wrappers need of the loaded site. */
export interface SiteHandle {
  /** @throws {ChannelkitError} `ERR_INVALID_CONFIG` when the config has no backend of that name. */
  backend(name?: string): ChannelBackend
  readonly backendNames: readonly string[]
  declaration(channel: string): ChannelDeclaration | undefined
  readonly logger: Logger
  /** @throws {ChannelkitError} `ERR_NOT_CONFIGURED` when the config has no sessions. */
  sessions(): SiteSessions
}

// Kept on the global object, so that two copies of the package in one process share one site.
const key = Symbol.for('channelkit.site')
const holder = globalThis as { [key]?: SiteHandle | undefined }

/**
 * The site this process has set up.
 *
 * @throws {ChannelkitError} `ERR_NOT_CONFIGURED`
 */
export function currentSite(): SiteHandle {
  const site = holder[key]
  if (site) return site
  throw new ChannelkitError(
    'ERR_NOT_CONFIGURED',
    'no site is set up in this process; await setup() first, start it by the channelkit command, or pass { backend }',
  )
}

currentSite.optional = (): SiteHandle | undefined => holder[key]

/** Makes `site` the one that `Channel` and `Group` use, or none. */
export function setCurrentSite(site: SiteHandle | undefined): void {
  holder[key] = site
}
