import type { ConnectionOptions } from 'node:tls'
import { ChannelkitError } from '../../errors.ts'

/** Where one server listens, and who asks. */
export interface RedisAddress {
  readonly host?: string
  readonly port?: number
  /** Of a Unix socket, instead of host and port. */
  readonly path?: string
  readonly tls?: ConnectionOptions | undefined
  readonly username?: string | undefined
  readonly password?: string | undefined
  readonly database?: number | undefined
}

/** What is used of a client of the package `redis`. */
export interface RedisClient {
  connect(): Promise<unknown>
  sendCommand(
    args: readonly (string | Buffer)[],
    options?: { readonly typeMapping?: Readonly<Record<number, unknown>> },
  ): Promise<unknown>
  subscribe(channel: string, listener: (message: Buffer) => void, buffers: true): Promise<unknown>
  unsubscribe(channel: string): Promise<unknown>
  on(event: 'error' | 'end', listener: (error: unknown) => void): unknown
  destroy(): void
  ping(): Promise<unknown>
}

interface RedisModule {
  createClient(options: unknown): RedisClient
  createCluster(options: unknown): unknown
}

let loaded: Promise<RedisModule> | undefined

/**
 * Loads the package `redis` when the first backend connects.
 *
 * @throws {ChannelkitError} `ERR_INVALID_CONFIG` saying what to install.
 */
export async function loadRedis(): Promise<RedisModule> {
  loaded ??= import('redis') as Promise<unknown> as Promise<RedisModule>
  try {
    return await loaded
  } catch (cause) {
    loaded = undefined
    throw new ChannelkitError(
      'ERR_INVALID_CONFIG',
      'the package redis is not installed here; run "npm install redis"',
      { cause },
    )
  }
}

/** So that blob strings come as bytes. */
export const asBytes = { typeMapping: { 36: Buffer } } as const

/** What the package's clients are made with: no queue, no time-outs and no reconnecting of their own. */
export function clientOptions(address: RedisAddress, connectTimeoutMs: number): object {
  const { host, port, path, tls, username, password, database } = address
  const place = path === undefined ? { host, port, ...(tls && { ...tls, tls: true }) } : { path }
  return {
    socket: { ...place, connectTimeout: connectTimeoutMs, reconnectStrategy: false },
    ...(username !== undefined && { username }),
    ...(password !== undefined && { password }),
    ...(database !== undefined && { database }),
    RESP: 2,
    disableOfflineQueue: true,
    disableClientInfo: true,
    maintNotifications: 'disabled',
    // By default each command has a timer, which costs more than the command.
    commandOptions: { timeout: 0 },
  }
}
