import type { ResolvedWebSocketSettings } from './settings.ts'

/** What a handshake tells of where it comes from. */
export interface OriginFacts {
  /** Every Origin header; browsers send exactly one. */
  readonly origins: readonly string[]
  readonly host: string | undefined
  /** Whether the client speaks TLS to us or to a trusted proxy. */
  readonly isSecure: boolean
  readonly clientHost: string
  readonly isProduction: boolean
}

const loopbackNames = new Set(['localhost', '127.0.0.1', '[::1]'])
const loopbackAddresses = new Set(['127.0.0.1', '::1', 'unknown'])

/**
 * Says why a handshake is refused, or `undefined` when it is admitted (RFC 6455 section 10.2). A
 * browser tells truly which site's page opens a socket, and sends the cookies of ours along, so
 * only our own pages and the listed ones may.
 *
 * In development a page on any port of this machine may reach a server on another, and clients on
 * this machine need send no Origin.
 */
export function originFault(
  facts: OriginFacts,
  { allowedOrigins, allowMissingOrigin }: ResolvedWebSocketSettings,
): string | undefined {
  if (allowedOrigins.includes('*')) return undefined
  const [origin] = facts.origins
  if (origin === undefined) {
    const mayMiss =
      allowMissingOrigin ?? (!facts.isProduction && loopbackAddresses.has(facts.clientHost))
    return mayMiss
      ? undefined
      : 'it has no Origin; set websocket.allowMissingOrigin to admit such clients'
  }
  if (facts.origins.length > 1) return 'it has two Origin headers'
  const parsed = parseOrigin(origin)
  if (!parsed) return 'its Origin is not one of a web page'
  if (allowedOrigins.includes(parsed.origin)) return undefined
  const host = parseHost(facts.host, parsed.protocol)
  if (!host) return 'it has no valid Host'
  const isSameHost = host.host === parsed.host
  if (isSameHost && !(facts.isSecure && parsed.protocol === 'http:')) return undefined
  if (
    !facts.isProduction &&
    loopbackNames.has(parsed.hostname) &&
    loopbackNames.has(host.hostname)
  ) {
    return undefined
  }
  return 'its Origin is another site; list it in websocket.allowedOrigins to admit it'
}

function parseOrigin(origin: string): URL | undefined {
  if (!/^https?:\/\/[\x21-\x7e]+$/i.test(origin) || !URL.canParse(origin)) return undefined
  const parsed = new URL(origin)
  // Anything beyond scheme, host and port would have been dropped by the parser.
  const isBare = parsed.pathname === '/' && !origin.endsWith('/') && !/[?#@\\]/.test(origin)
  return isBare ? parsed : undefined
}

/** Reads a Host header as if it had the page's scheme, so that default ports compare equal. */
function parseHost(host: string | undefined, protocol: string): URL | undefined {
  if (host === undefined || !/^[\x21-\x7e]+$/.test(host) || /[/?#@\\]/.test(host)) return undefined
  const url = `${protocol}//${host}`
  return URL.canParse(url) ? new URL(url) : undefined
}
