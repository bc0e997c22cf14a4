import { mkdirSync } from 'node:fs'
import { resolve } from 'node:path'
import type { ChannelBackend } from './backends/channel-backend.ts'
import { type OpenUrlOptions, openBackendUrl } from './backends/open-url.ts'
import type { ChannelDeclaration } from './channel-types.ts'
import { type ChannelBackendConfig, type Config, checkConfig } from './config.ts'
import { type Consumer, isLinearized, markLinearized, nameConsumer } from './consumer.ts'
import { type SiteHandle, setCurrentSite } from './current-site.ts'
import { warnOfDrops } from './drop-warnings.ts'
import { ChannelkitError, shown } from './errors.ts'
import type { Logger } from './logger.ts'
import { silentLogger } from './logger.ts'
import { goneChannel } from './names.ts'
import {
  defineRouting,
  type LoadedRouting,
  loadReference,
  loadRouting,
  type Routing,
} from './routing.ts'
import { SiteSessions } from './sessions/site-sessions.ts'
import { warnOfUnread } from './unread-messages.ts'
import { viewConsumer } from './view-layer/view-consumer.ts'
import { Worker } from './worker.ts'
import { endChannelSession } from './wrappers/channel-session.ts'
import { closeSocketsOf } from './wrappers/user-group.ts'

export interface SiteOptions {
  /** The folder that references and relative files start from. Default the working directory. */
  readonly root?: string
  readonly logger?: Logger
}

/**
 * A loaded config: its backends by name, and how to make workers for them. Routings are loaded when
 * a worker needs them, so a process that only sends runs none of the site's consumers.
 */
export class Site implements SiteHandle {
  readonly config: Config
  readonly root: string
  readonly logger: Logger
  readonly isProduction: boolean
  readonly #backends: ReadonlyMap<string, ChannelBackend>
  readonly #sessions: SiteSessions | undefined
  #hasWarned = false

  private constructor(
    config: Config,
    options: Required<SiteOptions>,
    backends: ReadonlyMap<string, ChannelBackend>,
  ) {
    this.config = config
    this.root = options.root
    this.logger = options.logger
    this.isProduction = isProduction(config)
    this.#backends = backends
    for (const [name, backend] of backends) warnOfDrops(name, backend, this.logger)
    const { session, auth } = config
    if (session !== undefined) {
      const { isProduction, logger } = this
      const onEnded = (key: string): void => closeSocketsOf(this, key)
      this.#sessions = new SiteSessions({ session, auth, isProduction, logger, onEnded })
    } else if (auth !== undefined) {
      throw new ChannelkitError(
        'ERR_INVALID_CONFIG',
        'the config has auth and no session; add session: { store, secret }',
      )
    }
  }

  /**
   * Checks a config and makes its backends, without connecting them yet.
   *
   * @throws {ChannelkitError} `ERR_INVALID_CONFIG`; what a backend's own constructor throws is
   *   passed on as it is.
   */
  static async load(config: Config, options: SiteOptions = {}): Promise<Site> {
    checkConfig(config)
    const root = options.root ?? process.cwd()
    const backends = new Map<string, ChannelBackend>()
    for (const [name, entry] of Object.entries(backendConfigs(config))) {
      backends.set(
        name,
        await makeBackend(name, entry, { root, isProduction: isProduction(config) }),
      )
    }
    return new Site(config, { root, logger: options.logger ?? silentLogger }, backends)
  }

  get backendNames(): readonly string[] {
    return [...this.#backends.keys()]
  }

  backend(name = 'default'): ChannelBackend {
    const backend = this.#backends.get(name)
    if (backend) return backend
    throw new ChannelkitError(
      'ERR_INVALID_CONFIG',
      `there is no channel backend ${shown(name)}; the config has ${this.backendNames.join(', ')}`,
    )
  }

  declaration(channel: string): ChannelDeclaration | undefined {
    const { channels } = this.config
    return channels && Object.hasOwn(channels, channel) ? channels[channel] : undefined
  }

  sessions(): SiteSessions {
    if (this.#sessions) return this.#sessions
    throw new ChannelkitError(
      'ERR_NOT_CONFIGURED',
      'sessions are asked for, and the config has none; add session: { store, secret }',
    )
  }

  /**
   * Loads the routing of a backend; on the default one, the site's app consumes `http.request`
   * where the routing has no consumer for it.
   *
   * @throws {ChannelkitError} `ERR_CONSUMER_NOT_FOUND`, `ERR_INVALID_CONFIG`
   */
  async routing(name = 'default'): Promise<LoadedRouting> {
    const entry = backendConfigs(this.config)[name]
    const routing = await this.#findRouting(name, entry?.routing)
    const rest = new Map<string, Consumer>()
    const { app } = this.config
    if (name === 'default' && app !== undefined && !routing.routes.has('http.request')) {
      rest.set('http.request', nameConsumer(await this.#view(app), 'view layer'))
    }
    const loaded = await loadRouting(routing, this.root, rest)
    return this.#sessions ? endingSessions(loaded) : loaded
  }

  /** Makes a worker for a backend; it is still to be started. */
  async worker(name = 'default'): Promise<Worker> {
    return new Worker({
      ...this.config.worker,
      backend: this.backend(name),
      routing: await this.routing(name),
      declaration: (channel) => this.declaration(channel),
      logger: this.logger,
    })
  }

  /**
   * Closes every backend. Connections to a server may keep a process alive until then, so that a
   * script calls this when it has awaited its last send.
   */
  async close(): Promise<void> {
    await this.warnOfUnread()
    this.#sessions?.close()
    await Promise.all([...this.#backends.values()].map((backend) => backend.close()))
  }

  /** Closes every backend, for `await using site = await setup()`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  /** Warns once of messages that nobody but this process, which ends, could have taken. */
  async warnOfUnread(): Promise<void> {
    if (this.#hasWarned) return
    this.#hasWarned = true
    for (const [name, backend] of this.#backends) await warnOfUnread(name, backend, this.logger)
  }

  async #findRouting(name: string, routing: Routing | string | undefined): Promise<Routing> {
    if (routing === undefined) return defineRouting({})
    const found =
      typeof routing === 'string'
        ? await loadReference(`the routing of channel backend ${name}`, routing, this.root)
        : routing
    if (typeof found === 'object' && found !== null && 'routes' in found) return found as Routing
    throw new ChannelkitError(
      'ERR_INVALID_CONFIG',
      `the routing of channel backend ${name} is ${shown(routing)}; make it by defineRouting({ … })`,
    )
  }

  async #view(app: NonNullable<Config['app']>): Promise<Consumer> {
    const found = typeof app === 'string' ? await loadReference('app', app, this.root) : app
    return viewConsumer(found, { isProduction: this.isProduction, logger: this.logger })
  }
}

/**
 * Loads a site and makes it the one that `Channel` and `Group` use in this process: the way in for
 * scripts, cron jobs and other servers.
 *
 * @param config - a config, or the path of a config file; by default `channels.config.ts` (or
 *   `.js`, `.mjs`) in the working directory or above it.
 */
export async function setup(config?: Config | string, options: SiteOptions = {}): Promise<Site> {
  let site: Site
  if (typeof config === 'object') {
    site = await Site.load(config, options)
  } else {
    const { loadConfigFile } = await import('./config-file.ts')
    const loaded = await loadConfigFile(config)
    site = await Site.load(loaded.config, { root: loaded.root, ...options })
  }
  setCurrentSite(site)
  if (latestSite === undefined) process.once('beforeExit', () => latestSite?.warnOfUnread())
  latestSite = site
  return site
}

/** Which `setup` loaded last: what waits in it is looked at when the process has no more to do. */
let latestSite: Site | undefined

/**
 * Ends the channel session of each socket, wherever sockets have consumers: after the site's own of
 * `websocket.disconnect`, which other workers may have, or on a channel for those without.
 */
function endingSessions(routing: LoadedRouting): LoadedRouting {
  const onSockets = [...routing].filter(([channel]) => channel.startsWith('websocket.'))
  if (onSockets.length === 0) return routing
  const own = routing.get('websocket.disconnect')
  const ending = endChannelSession(own ?? ignoreDisconnect)
  // What waits in the client's line has use for its session still.
  if (onSockets.some(([, consumer]) => isLinearized(consumer))) markLinearized(ending)
  return new Map(routing).set(own ? 'websocket.disconnect' : goneChannel, ending)
}

function ignoreDisconnect(): void {}

function isProduction({ mode }: Config): boolean {
  return (mode ?? process.env.NODE_ENV) === 'production'
}

function backendConfigs(config: Config): Readonly<Record<string, ChannelBackendConfig>> {
  return config.channelBackends ?? { default: {} }
}

async function makeBackend(
  name: string,
  { backend }: ChannelBackendConfig,
  options: OpenUrlOptions,
): Promise<ChannelBackend> {
  const choice = backend ?? defaultBackendUrl(options.root)
  if (typeof choice === 'string') return openBackendUrl(choice, options)
  const made = typeof choice === 'function' ? await choice() : choice
  if (typeof made === 'object' && made !== null && 'groupSend' in made) return made
  throw new ChannelkitError(
    'ERR_INVALID_CONFIG',
    `channelBackends.${name}.backend is ${shown(made)}; give a backend, a function that makes one, or a URL like sqlite:channels.sqlite`,
  )
}

function defaultBackendUrl(root: string): string {
  mkdirSync(resolve(root, '.channelkit'), { recursive: true })
  return 'sqlite:.channelkit/channels.sqlite'
}
