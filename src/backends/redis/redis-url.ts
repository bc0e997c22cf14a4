import { isIP } from 'node:net'
import { ChannelkitError, shown } from '../../errors.ts'

/** A host and its port. */
export interface RedisNode {
  readonly host: string
  readonly port: number
}

/** What the URL of a Redis says. */
export interface RedisUrl {
  readonly kind: 'server' | 'socket' | 'sentinel' | 'cluster'
  /** Empty for a socket. */
  readonly nodes: readonly RedisNode[]
  readonly path?: string
  /** The name of the watched master. */
  readonly masterName?: string
  readonly isSecure: boolean
  readonly username?: string
  readonly password?: string
  readonly database?: number
  readonly prefix?: string
  readonly allowUnprotected: boolean
  /** The URL without its password, for errors. */
  readonly shownAs: string
}

const kinds = {
  'redis:': ['server', false],
  'rediss:': ['server', true],
  'redis+unix:': ['socket', false],
  'redis+sentinel:': ['sentinel', false],
  'rediss+sentinel:': ['sentinel', true],
  'redis+cluster:': ['cluster', false],
  'rediss+cluster:': ['cluster', true],
} as const

const defaultPort = 6_379
const defaultSentinelPort = 26_379
const form =
  /^(?<protocol>[a-z+]+:)\/\/(?:(?<user>[^:@/]*)(?::(?<password>[^@/]*))?@)?(?<hosts>[^/?#]*)(?<path>\/[^?#]*)?(?:\?(?<query>[^#]*))?$/

/**
 * Reads the URL of a Redis: `redis://user:password@host:port/database?prefix=…`, `rediss://` for TLS,
 * `redis+unix:///path`, `redis+sentinel://host:port,host:port/master/database`, `redis+cluster://`.
 *
 * @throws {ChannelkitError} `ERR_INVALID_CONFIG` naming what is wrong, without the password.
 */
export function readRedisUrl(url: string): RedisUrl {
  const parts = form.exec(url)?.groups
  const kind = kinds[parts?.protocol as keyof typeof kinds]
  const shownAs = url.replace(/:[^:@/]*@/, ':…@').replace(/\?.*$/, '')
  if (!parts || !kind) {
    throw fault(
      shownAs,
      'use redis://HOST:PORT, rediss://, redis+unix:///PATH, redis+sentinel:// or redis+cluster://',
    )
  }
  const [name, isSecure] = kind
  const query = new URLSearchParams(parts.query ?? '')
  for (const key of query.keys()) {
    if (!['prefix', 'db', 'allowUnprotected'].includes(key)) {
      throw fault(shownAs, `leave out ${shown(key)}; it may have prefix, db and allowUnprotected`)
    }
  }
  const path = decodeURIComponent(parts.path ?? '')
  const segments = path.split('/').filter((segment) => segment !== '')
  const masterName = name === 'sentinel' ? segments.shift() : undefined
  if (name === 'sentinel' && masterName === undefined) {
    throw fault(
      shownAs,
      'name the master behind the hosts, as in redis+sentinel://HOST:PORT/mymaster',
    )
  }
  if (name === 'socket' && segments.length === 0) {
    throw fault(shownAs, 'give the path of the socket, as in redis+unix:///run/redis/redis.sock')
  }
  const databaseText = query.get('db') ?? (name === 'socket' ? undefined : segments[0])
  const database = databaseText === undefined ? undefined : Number(databaseText)
  if (database !== undefined && !(Number.isInteger(database) && database >= 0)) {
    throw fault(shownAs, `give the database as a whole number, not ${shown(databaseText)}`)
  }
  if (name === 'cluster' && database) {
    throw fault(shownAs, 'leave out the database; a cluster has only 0')
  }
  const port = name === 'sentinel' ? defaultSentinelPort : defaultPort
  const [user, password, prefix] = [parts.user, parts.password, query.get('prefix')]
  return {
    kind: name,
    nodes: name === 'socket' ? [] : readHosts(parts.hosts ?? '', port, shownAs),
    ...(name === 'socket' && { path }),
    ...(masterName !== undefined && { masterName }),
    isSecure,
    ...(user && { username: decodeURIComponent(user) }),
    ...(password && { password: decodeURIComponent(password) }),
    ...(database !== undefined && { database }),
    ...(prefix !== null && { prefix }),
    allowUnprotected: query.get('allowUnprotected') === 'true',
    shownAs,
  }
}

/** Whether a host is this machine, where no network lies between. */
export function isLoopback(host: string): boolean {
  if (host === 'localhost' || host === '::1') return true
  return isIP(host) === 4 && host.startsWith('127.')
}

function readHosts(text: string, defaultTo: number, shownAs: string): readonly RedisNode[] {
  return (text === '' ? 'localhost' : text).split(',').map((each) => {
    const parts = /^(?:\[(?<v6>[0-9a-fA-F:.]+)\]|(?<name>[^:[\]]+))(?::(?<port>\d+))?$/.exec(each)
    const port = Number(parts?.groups?.port ?? defaultTo)
    const host = parts?.groups?.v6 ?? parts?.groups?.name
    if (host === undefined || port < 1 || port > 65_535) {
      throw fault(shownAs, `${shown(each)} is no HOST or HOST:PORT`)
    }
    return { host, port }
  })
}

function fault(shownAs: string, advice: string): ChannelkitError {
  return new ChannelkitError(
    'ERR_INVALID_CONFIG',
    `Redis URL ${shown(shownAs)} cannot be used; ${advice}`,
  )
}
