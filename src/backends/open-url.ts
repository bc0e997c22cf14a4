import { resolve } from 'node:path'
import { ChannelkitError, shown } from '../errors.ts'
import { withoutPassword } from '../internal/without-password.ts'
import type { ChannelBackend } from './channel-backend.ts'

/** What a config says of the backends it names by URL. */
export interface OpenUrlOptions {
  /** The folder a file's path starts from. */
  readonly root: string
  /** In production the tables of a database server are made by `channelkit migrate` alone. */
  readonly isProduction?: boolean
}

/**
 * Makes the backend a URL stands for. Each is imported only when named, so that a site needs only
 * the driver it uses.
 *
 * @throws {ChannelkitError} `ERR_INVALID_CONFIG` for an unknown protocol.
 */
export async function openBackendUrl(
  url: string,
  { root, isProduction = false }: OpenUrlOptions,
): Promise<ChannelBackend> {
  const protocol = /^[a-z+]+:/.exec(url)?.[0]
  switch (protocol) {
    case 'memory:': {
      const { MemoryBackend } = await import('./memory/memory-backend.ts')
      return new MemoryBackend()
    }
    case 'sqlite:': {
      const file = url.slice(protocol.length)
      if (file === '' || file.startsWith(':memory:')) {
        throw new ChannelkitError(
          'ERR_INVALID_CONFIG',
          `channel backend URL ${shown(url)} names no file; use memory: for messages inside one process, or sqlite:FILE`,
        )
      }
      const { SqliteBackend } = await import('./sql/sqlite.ts')
      return new SqliteBackend({ file: resolve(root, file) })
    }
    case 'postgres:':
    case 'postgresql:': {
      const { PostgresBackend } = await import('./sql/postgres.ts')
      return new PostgresBackend({ url, migrate: isProduction ? 'manual' : 'auto' })
    }
    case 'redis:':
    case 'rediss:':
    case 'redis+unix:':
    case 'redis+sentinel:':
    case 'rediss+sentinel:':
    case 'redis+cluster:':
    case 'rediss+cluster:': {
      const { RedisBackend } = await import('./redis/redis.ts')
      return new RedisBackend({ url })
    }
    case 'mysql:':
    case 'mariadb:': {
      const { MysqlBackend } = await import('./sql/mysql.ts')
      return new MysqlBackend({ url, migrate: isProduction ? 'manual' : 'auto' })
    }
    default:
      throw new ChannelkitError(
        'ERR_INVALID_CONFIG',
        `channel backend URL ${shown(withoutPassword(url))} is of no known kind; use memory:, sqlite:FILE, postgres://USER@HOST/DATABASE, mysql://USER@HOST/DATABASE or redis://HOST:PORT`,
      )
  }
}
