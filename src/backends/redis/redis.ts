import { isIP } from 'node:net'
import type { ConnectionOptions } from 'node:tls'
import { ChannelkitError, shown } from '../../errors.ts'
import type { BackendOptions } from '../channel-backend.ts'
import type { EncryptionOptions } from '../content-seal.ts'
import { wholeNumber } from '../limits.ts'
import type { ServerClock } from '../server-clock.ts'
import { ClusterLink } from './cluster-link.ts'
import { BaseRedisBackend } from './redis-backend.ts'
import type { RedisAddress } from './redis-client.ts'
import type { RedisLink } from './redis-link.ts'
import { isLoopback, type RedisNode, type RedisUrl, readRedisUrl } from './redis-url.ts'
import { askSentinels } from './sentinel.ts'
import { ServerLink } from './server-link.ts'

export type { EncryptionOptions } from '../content-seal.ts'

/** Options of {@link RedisBackend}. */
export interface RedisBackendOptions extends BackendOptions {
  /**
   * `redis://user:password@host:port/database`, `rediss://` for TLS, `redis+unix:///path`,
   * `redis+sentinel://host:port,host:port/master/database` or `redis+cluster://host:port,host:port`.
   */
  readonly url: string
  /** Over that of the URL. */
  readonly username?: string
  /** Over that of the URL. */
  readonly password?: string
  /** For sentinels that ask for one. */
  readonly sentinelUsername?: string
  readonly sentinelPassword?: string
  /** Of Node's `tls.connect`, for a `rediss` URL: `ca`, `cert`, `key`, `servername`. */
  readonly tls?: ConnectionOptions
  /**
   * Start of every key and publish channel: 1-100 characters without braces or spaces. Sites with
   * different prefixes have nothing in common. Default `channelkit:`.
   */
  readonly prefix?: string
  /**
   * How long a call waits for an answer, or for a connection when it is lost, before it rejects with
   * `ERR_BACKEND_UNAVAILABLE`, in milliseconds. Default 5,000.
   */
  readonly timeoutMs?: number
  /**
   * Allows a server on another machine without TLS and without a password: whoever reaches it can
   * read and forge every message. Default false.
   */
  readonly allowUnprotected?: boolean
  /** Encrypts the content of messages; names stay clear. Default none. */
  readonly encryption?: EncryptionOptions
}

/** Carries messages between the processes of any number of machines through Redis or Valkey. */
export class RedisBackend extends BaseRedisBackend {
  /** @throws {ChannelkitError} `ERR_INVALID_CONFIG` */
  constructor(options: RedisBackendOptions) {
    const { url, username, password, sentinelUsername, sentinelPassword, ...others } = options
    const { tls, prefix, timeoutMs, allowUnprotected, encryption, ...limits } = others
    if (typeof url !== 'string') {
      throw new ChannelkitError(
        'ERR_INVALID_CONFIG',
        `url is ${shown(url)}; give the URL of a Redis, such as redis://localhost:6379`,
      )
    }
    const read = readRedisUrl(url)
    const place: RedisPlace = {
      ...read,
      ...(username !== undefined && { username }),
      ...(password !== undefined && { password }),
      ...(allowUnprotected !== undefined && { allowUnprotected }),
      sentinelUsername,
      sentinelPassword,
      tls,
      timeoutMs: wholeNumber('timeoutMs', timeoutMs ?? 5_000),
    }
    refuseUnprotected(place)
    super(limits, {
      prefix: checkPrefix(prefix ?? read.prefix ?? 'channelkit:'),
      connect: (base, clock) => connect(place, base, clock),
      encryption,
    })
  }
}

interface RedisPlace extends RedisUrl {
  readonly sentinelUsername: string | undefined
  readonly sentinelPassword: string | undefined
  readonly tls: ConnectionOptions | undefined
  readonly timeoutMs: number
}

function connect(place: RedisPlace, base: string, clock: ServerClock): RedisLink {
  const { kind, nodes, shownAs, timeoutMs, masterName = '' } = place
  const common = { shownAs, timeoutMs, base, clock }
  const addressOf = (node: RedisNode): RedisAddress => addressIn(place, node)
  if (kind === 'cluster') return new ClusterLink({ seeds: nodes, addressOf, ...common })
  if (kind === 'sentinel') {
    const sentinelOf = (node: RedisNode): RedisAddress => ({
      ...addressOf(node),
      database: undefined,
      username: place.sentinelUsername,
      password: place.sentinelPassword,
    })
    const locate = async () => addressOf(await askSentinels(nodes, masterName, sentinelOf))
    return new ServerLink({ locate, ...common })
  }
  const [node = { host: 'localhost', port: 6_379 }] = nodes
  return new ServerLink({ locate: async () => addressOf(node), ...common })
}

function addressIn(
  { path, isSecure, tls, username, password, database }: RedisPlace,
  { host, port }: RedisNode,
): RedisAddress {
  const user = { username, password, database }
  if (path !== undefined) return { path, ...user }
  // A certificate names no address.
  const servername = isIP(host) === 0 ? { servername: host } : {}
  return { host, port, ...(isSecure && { tls: { ...servername, ...tls } }), ...user }
}

function refuseUnprotected({ nodes, isSecure, password, allowUnprotected, shownAs }: RedisUrl) {
  if (isSecure || password !== undefined || allowUnprotected) return
  const distant = nodes.find(({ host }) => !isLoopback(host))
  if (!distant) return
  throw new ChannelkitError(
    'ERR_INVALID_CONFIG',
    `Redis URL ${shown(shownAs)} leads to another machine without TLS and without a password, so whoever reaches ${distant.host} can forge messages; give it a password, use rediss://, or set allowUnprotected`,
  )
}

function checkPrefix(prefix: unknown): string {
  if (typeof prefix === 'string' && /^[^{}\s]{1,100}$/.test(prefix)) return prefix
  throw new ChannelkitError(
    'ERR_INVALID_CONFIG',
    `prefix is ${shown(prefix)}; give 1-100 characters without braces and spaces`,
  )
}
