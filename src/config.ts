import type { ChannelBackend } from './backends/channel-backend.ts'
import type { ChannelDeclarations } from './channel-types.ts'
import { ChannelkitError, shown } from './errors.ts'
import type { HttpSettings, WebSocketSettings } from './interface-servers/settings.ts'
import { type PublishSettings, resolvePublishSettings } from './publish-settings.ts'
import type { Routing } from './routing.ts'
import type { AuthConfig, SessionConfig } from './sessions/session-config.ts'
import type { ViewApp } from './view-layer/view-app.ts'
import type { WorkerSettings } from './worker.ts'

/** What carries the messages of one named backend, and who consumes them. */
export interface ChannelBackendConfig {
  /**
   * A backend, a function that makes one, or a URL: `memory:`, `sqlite:FILE`, `redis://HOST:PORT`. Default
   * `sqlite:.channelkit/channels.sqlite`.
   */
  readonly backend?: ChannelBackend | (() => ChannelBackend | Promise<ChannelBackend>) | string
  /** A routing, or where it is exported: `'./routing.ts#channelRouting'`. */
  readonly routing?: Routing | string
}

/** A site: the default export of `channels.config.ts`. */
export interface Config {
  /** Backends by name; interface servers use the one named `default`. */
  readonly channelBackends?: Readonly<Record<string, ChannelBackendConfig>>
  /**
   * The site's web app, which answers `http.request` where the routing has no consumer for it: an
   * object with `fetch(request)`, as Hono's app is; a Node handler `(req, res)`, as Express's is;
   * an app of Fastify or Koa; a function that imports one, or a reference `'./app.ts#app'`.
   */
  readonly app?: ViewApp | string
  /** The site's own channels, made by `defineChannels`. */
  readonly channels?: ChannelDeclarations
  /** URL prefix → folder of files served by the HTTP interface server, `{ '/static/': './public' }`. */
  readonly staticFiles?: Readonly<Record<string, string>>
  readonly websocket?: WebSocketSettings
  readonly http?: HttpSettings
  readonly worker?: WorkerSettings
  /** Where programs in other languages send messages by HTTP. Default nowhere. */
  readonly publish?: PublishSettings | undefined
  /** The site's sessions: their store and secret, for the session wrappers. */
  readonly session?: SessionConfig
  /**
   * Who a session belongs to: a function, `{ user, hash, id }`, `passportUser(passport)` or
   * `betterAuthUser(auth)`.
   */
  readonly auth?: AuthConfig
  /** `production` hides errors from clients and closes what only development needs. Default by NODE_ENV. */
  readonly mode?: 'development' | 'production'
}

/** Checks a config and gives it its type, for `export default defineConfig({ … })`. */
export function defineConfig(config: Config): Config {
  checkConfig(config)
  return config
}

const knownKeys: ReadonlySet<string> = new Set([
  'channelBackends',
  'app',
  'channels',
  'staticFiles',
  'websocket',
  'http',
  'worker',
  'publish',
  'session',
  'auth',
  'mode',
] satisfies (keyof Config)[])

/**
 * @throws {ChannelkitError} `ERR_INVALID_CONFIG` naming the key that is wrong.
 */
export function checkConfig(config: unknown): asserts config is Config {
  if (typeof config !== 'object' || config === null) {
    throw new ChannelkitError(
      'ERR_INVALID_CONFIG',
      `the config is ${shown(config)}; export default defineConfig({ channelBackends: { default: { … } } })`,
    )
  }
  for (const key of Object.keys(config)) {
    if (!knownKeys.has(key)) {
      throw new ChannelkitError(
        'ERR_INVALID_CONFIG',
        `the config has an unknown key ${shown(key)}; it may have ${[...knownKeys].join(', ')}`,
      )
    }
  }
  checkSections(config as Readonly<Record<string, unknown>>)
  const { channelBackends, mode, publish } = config as Config
  if (publish !== undefined) resolvePublishSettings(publish)
  checkBackends(channelBackends)
  if (channelBackends && !Object.hasOwn(channelBackends, 'default')) {
    throw new ChannelkitError(
      'ERR_INVALID_CONFIG',
      `channelBackends has ${Object.keys(channelBackends).join(', ') || 'nothing'} and no default; name one of them default`,
    )
  }
  if (mode !== undefined && mode !== 'development' && mode !== 'production') {
    throw new ChannelkitError(
      'ERR_INVALID_CONFIG',
      `mode is ${shown(mode)}; give 'development' or 'production'`,
    )
  }
}

/** The sections that are tables, each with an example of what may stand in it. */
const sections = {
  channels: 'defineChannels({ … })',
  staticFiles: "{ '/static/': './public' }",
  websocket: "{ allowedOrigins: ['https://example.com'] }",
  http: '{ maxBodyBytes: 1_000_000 }',
  worker: '{ concurrency: 10 }',
} satisfies Partial<Record<keyof Config, string>>

const knownWorkerKeys: ReadonlySet<string> = new Set([
  'concurrency',
  'maxRequeues',
  'maxStreams',
  'graceMs',
  'lineLeaseMs',
  'maxTurnMs',
  'holdLeaseMs',
  'deadLetterExpiryMs',
] satisfies (keyof WorkerSettings)[])

function checkSections(config: Readonly<Record<string, unknown>>): void {
  for (const [name, example] of Object.entries(sections)) {
    const section = config[name]
    if (section === undefined || isTable(section)) continue
    throw new ChannelkitError(
      'ERR_INVALID_CONFIG',
      `${name} is ${shown(section)}; give ${example}, or leave it out`,
    )
  }
  const { worker = {}, staticFiles = {}, channels = {} } = config as Config
  const unknown = Object.keys(worker).find((key) => !knownWorkerKeys.has(key))
  if (unknown !== undefined) {
    throw new ChannelkitError(
      'ERR_INVALID_CONFIG',
      `worker has an unknown setting ${shown(unknown)}, which is ${shown(worker[unknown as keyof WorkerSettings])}; it may have ${[...knownWorkerKeys].join(', ')}`,
    )
  }
  for (const [prefix, folder] of Object.entries<unknown>(staticFiles)) {
    if (typeof folder === 'string') continue
    throw new ChannelkitError(
      'ERR_INVALID_CONFIG',
      `staticFiles[${shown(prefix)}] is ${shown(folder)}; give the path of a folder`,
    )
  }
  for (const [channel, declaration] of Object.entries<unknown>(channels)) {
    if (isTable(declaration)) continue
    throw new ChannelkitError(
      'ERR_INVALID_CONFIG',
      `channels[${shown(channel)}] is ${shown(declaration)}; give content<…>() or { schema }`,
    )
  }
}

const knownBackendKeys: ReadonlySet<string> = new Set([
  'backend',
  'routing',
] satisfies (keyof ChannelBackendConfig)[])

function checkBackends(backends: unknown): void {
  if (backends === undefined) return
  if (!isTable(backends)) {
    throw new ChannelkitError(
      'ERR_INVALID_CONFIG',
      `channelBackends is ${shown(backends)}; give { default: { backend, routing } }`,
    )
  }
  for (const [name, entry] of Object.entries(backends)) {
    if (!isTable(entry)) {
      throw new ChannelkitError(
        'ERR_INVALID_CONFIG',
        `channelBackends.${name} is ${shown(entry)}; give { backend, routing }`,
      )
    }
    const unknown = Object.keys(entry).find((key) => !knownBackendKeys.has(key))
    if (unknown !== undefined) {
      throw new ChannelkitError(
        'ERR_INVALID_CONFIG',
        `channelBackends.${name} has an unknown key ${shown(unknown)}; it may have ${[...knownBackendKeys].join(', ')}`,
      )
    }
  }
}

function isTable(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
