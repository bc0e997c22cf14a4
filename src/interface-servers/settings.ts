import { ChannelkitError, shown } from '../errors.ts'

/** How the WebSocket interface server treats its clients; every setting has a default. */
export interface WebSocketSettings {
  /** Path prefixes it serves; upgrades to others are left to other listeners. Default all. */
  readonly paths?: readonly string[]
  /**
   * Origins admitted beside the server's own, like `https://example.com`; `'*'` admits every one.
   * Default none.
   */
  readonly allowedOrigins?: readonly string[]
  /** Whether clients that send no Origin (no browser does that) are admitted. Default false in production; in development those on loopback are. */
  readonly allowMissingOrigin?: boolean
  /**
   * `immediately` completes the handshake at once; `consumer` waits for the reply to
   * `websocket.connect`. Default `immediately`.
   */
  readonly acceptance?: 'immediately' | 'consumer'
  /** How long a handshake may wait for its consumer, in milliseconds. Default 5,000. */
  readonly handshakeMs?: number
  /**
   * Largest message from a client, in bytes; a larger one closes with 1009. Default 131,072: of that
   * size every message fits into a backend's default `maxContentBytes`, where a character may take
   * six bytes.
   */
  readonly maxMessageBytes?: number
  /**
   * Most bytes that may wait for a client for longer than a second, or an eighth of what may wait at
   * once; beyond, it is closed with 1013. Default 1,048,576.
   */
  readonly maxBufferedBytes?: number
  /** Most open sockets; further handshakes get 503. Default 10,000. */
  readonly maxSockets?: number
  /** Time between pings, in milliseconds. Default 20,000. */
  readonly pingMs?: number
  /** How long a ping may go unanswered before the socket is cut, in milliseconds. Default 20,000. */
  readonly pongMs?: number
  /**
   * `auto` renews the group memberships of open sockets; with `manual` they end unless a consumer
   * of `websocket.keepalive` adds them again. Default `auto`.
   */
  readonly renewal?: 'auto' | 'manual'
  /** Sockets closed at a time while shutting down. Default 100. */
  readonly closeBatch?: number
  /** Time between those batches, in milliseconds. Default 50. */
  readonly closeBatchMs?: number
}

/** How the HTTP interface server treats its clients; every setting has a default. */
export interface HttpSettings {
  /** Largest request body, in bytes; a larger one gets 413. Default 2,621,440 (2.5 MiB). */
  readonly maxBodyBytes?: number
  /** How long a request may wait for its answer's first part, in milliseconds, before 504. Default 30,000. */
  readonly responseMs?: number
  /** How long a request waits for a worker when none listens, in milliseconds, before 503. Default 5,000. */
  readonly workerGapMs?: number
  /** How long a client may take to send its headers, in milliseconds, before 408. Default 10,000. */
  readonly headersMs?: number
  /**
   * How long a client may take to send its body, or each part of 256 KiB of a longer one, in
   * milliseconds, before 408. Default 30,000.
   */
  readonly requestMs?: number
  /** Largest head of a request, in bytes, before 431. Default 16,384. */
  readonly maxHeaderBytes?: number
  /**
   * Most requests of one connection under way at once; further ones, which a client sends without
   * waiting for its answers, are not read before. Default 16.
   */
  readonly maxPipelined?: number
  /**
   * How long a begun answer may pause when no view keeps it alive, in milliseconds, before it is
   * cut. Default 300,000.
   */
  readonly streamMs?: number
  /**
   * How long a client may take nothing of an answer that waits for it, in milliseconds, before it is
   * cut off. Default 30,000.
   */
  readonly drainMs?: number
  /**
   * Addresses or subnets (`10.0.0.0/8`) of proxies whose `X-Forwarded-For` and
   * `X-Forwarded-Proto` are believed. Default none.
   */
  readonly trustedProxies?: readonly string[]
}

export type ResolvedWebSocketSettings = Readonly<
  Required<Omit<WebSocketSettings, 'allowMissingOrigin'>>
> & {
  readonly allowMissingOrigin: boolean | undefined
}
export type ResolvedHttpSettings = Readonly<Required<HttpSettings>>

/** @throws {ChannelkitError} `ERR_INVALID_CONFIG` naming the setting and its value. */
export function resolveWebSocketSettings(
  settings: WebSocketSettings = {},
): ResolvedWebSocketSettings {
  const number = numberReader('websocket', settings)
  const resolved = Object.freeze({
    paths: list('websocket.paths', settings.paths ?? ['/']),
    allowedOrigins: list('websocket.allowedOrigins', settings.allowedOrigins ?? []).map(
      checkOrigin,
    ),
    allowMissingOrigin: optionalBoolean(
      'websocket.allowMissingOrigin',
      settings.allowMissingOrigin,
    ),
    acceptance: oneOf('websocket.acceptance', settings.acceptance, ['immediately', 'consumer']),
    handshakeMs: number('handshakeMs', 5_000),
    maxMessageBytes: number('maxMessageBytes', 131_072),
    maxBufferedBytes: number('maxBufferedBytes', 1_048_576),
    maxSockets: number('maxSockets', 10_000),
    pingMs: number('pingMs', 20_000),
    pongMs: number('pongMs', 20_000),
    renewal: oneOf('websocket.renewal', settings.renewal, ['auto', 'manual']),
    closeBatch: number('closeBatch', 100),
    closeBatchMs: number('closeBatchMs', 50),
  })
  checkKeys('websocket', settings, resolved)
  return resolved
}

/** @throws {ChannelkitError} `ERR_INVALID_CONFIG` naming the setting and its value. */
export function resolveHttpSettings(settings: HttpSettings = {}): ResolvedHttpSettings {
  const number = numberReader('http', settings)
  const resolved = Object.freeze({
    maxBodyBytes: number('maxBodyBytes', 2_621_440),
    responseMs: number('responseMs', 30_000),
    workerGapMs: number('workerGapMs', 5_000),
    headersMs: number('headersMs', 10_000),
    requestMs: number('requestMs', 30_000),
    maxHeaderBytes: number('maxHeaderBytes', 16_384),
    maxPipelined: number('maxPipelined', 16),
    streamMs: number('streamMs', 300_000),
    drainMs: number('drainMs', 30_000),
    trustedProxies: list('http.trustedProxies', settings.trustedProxies ?? []),
  })
  checkKeys('http', settings, resolved)
  return resolved
}

/** A misspelt setting must not leave the default in force unnoticed. */
function checkKeys(section: string, settings: object, resolved: object): void {
  for (const [key, value] of Object.entries(settings)) {
    if (Object.hasOwn(resolved, key)) continue
    throw new ChannelkitError(
      'ERR_INVALID_CONFIG',
      `${section} has an unknown setting ${shown(key)}, which is ${shown(value)}; it may have ${Object.keys(resolved).join(', ')}`,
    )
  }
}

function list(name: string, value: unknown): readonly string[] {
  if (Array.isArray(value) && value.every((item) => typeof item === 'string')) return value
  throw new ChannelkitError(
    'ERR_INVALID_CONFIG',
    `${name} is ${shown(value)}; give a list of strings`,
  )
}

function optionalBoolean(name: string, value: unknown): boolean | undefined {
  if (value === undefined || typeof value === 'boolean') return value
  throw new ChannelkitError('ERR_INVALID_CONFIG', `${name} is ${shown(value)}; give true or false`)
}

function numberReader<S extends object>(section: string, settings: S) {
  return (name: keyof S & string, fallback: number): number => {
    const value = settings[name] ?? fallback
    if (typeof value === 'number' && Number.isInteger(value) && value >= 1) return value
    throw new ChannelkitError(
      'ERR_INVALID_CONFIG',
      `${section}.${name} is ${shown(value)}; give a whole number from 1`,
    )
  }
}

function oneOf<const T extends string>(
  name: string,
  value: T | undefined,
  choices: readonly [T, ...T[]],
): T {
  if (value === undefined) return choices[0]
  if (choices.includes(value)) return value
  throw new ChannelkitError(
    'ERR_INVALID_CONFIG',
    `${name} is ${shown(value)}; give one of ${choices.join(', ')}`,
  )
}

function checkOrigin(origin: string): string {
  if (origin === '*') return origin
  const parsed = URL.canParse(origin) ? new URL(origin) : undefined
  if (parsed && parsed.origin !== 'null' && parsed.pathname === '/' && !parsed.search) {
    return parsed.origin
  }
  throw new ChannelkitError(
    'ERR_INVALID_CONFIG',
    `websocket.allowedOrigins has ${shown(origin)}; give a scheme, host and port like https://example.com`,
  )
}
