import type { IncomingMessage } from 'node:http'
import { BlockList, isIP, isIPv6 } from 'node:net'
import { ChannelkitError, shown } from '../errors.ts'
import type { Address } from '../message-formats.ts'

/** Who is at the other end, as far as it can be believed. */
export interface Peer {
  readonly client: Address
  readonly isSecure: boolean
  /** Whether a proxy says so, and not the connection itself. */
  readonly isForwarded: boolean
}

export type PeerReader = (request: IncomingMessage) => Peer

/**
 * Makes the function that finds a request's client. `X-Forwarded-For` and `X-Forwarded-Proto` count
 * only when the connection comes from a listed proxy: then the client is the last address in the
 * list that is not such a proxy itself, with port 0.
 *
 * @param trustedProxies - addresses, or subnets like `10.0.0.0/8`.
 * @throws {ChannelkitError} `ERR_INVALID_CONFIG` naming the entry that is neither.
 */
export function peerReader(trustedProxies: readonly string[]): PeerReader {
  if (trustedProxies.length === 0) return directPeer
  const proxies = new BlockList()
  for (const entry of trustedProxies) addEntry(proxies, entry)
  const isTrusted = (host: string): boolean =>
    isIP(host) !== 0 && proxies.check(host, isIPv6(host) ? 'ipv6' : 'ipv4')
  return (request) => {
    const direct = directPeer(request)
    if (!isTrusted(direct.client[0])) return direct
    const host = forwardedHost(header(request, 'x-forwarded-for') ?? '', isTrusted)
    const scheme = header(request, 'x-forwarded-proto')?.split(',').at(-1)?.trim().toLowerCase()
    return {
      client: host === undefined ? direct.client : [host, 0],
      isSecure: scheme === undefined ? direct.isSecure : scheme === 'https' || scheme === 'wss',
      isForwarded: host !== undefined || scheme !== undefined,
    }
  }
}

/**
 * The last address of the list that is not a trusted proxy's: what stands before it anyone may have
 * written. Nothing before an entry that is no address is believed either.
 */
function forwardedHost(list: string, isTrusted: (host: string) => boolean): string | undefined {
  let host: string | undefined
  for (const part of list.split(',').reverse()) {
    const address = plainAddress(withoutPort(part.trim()))
    if (isIP(address) === 0) break
    host = address
    if (!isTrusted(address)) break
  }
  return host
}

/** Some proxies write `192.0.2.1:4711` or `[2001:db8::1]:4711`. */
function withoutPort(entry: string): string {
  return /^\[(.*)\](?::\d+)?$/.exec(entry)?.[1] ?? /^([\d.]+):\d+$/.exec(entry)?.[1] ?? entry
}

function directPeer({ socket }: IncomingMessage): Peer {
  return {
    client: [plainAddress(socket.remoteAddress), socket.remotePort ?? 0],
    isSecure: 'encrypted' in socket && socket.encrypted === true,
    isForwarded: false,
  }
}

/** Writes an IPv4 address that came over an IPv6 socket as IPv4. */
export function plainAddress(address: string | undefined): string {
  if (address === undefined) return 'unknown'
  return address.startsWith('::ffff:') && address.includes('.') ? address.slice(7) : address
}

function header(request: IncomingMessage, name: string): string | undefined {
  const value = request.headers[name]
  return Array.isArray(value) ? value.join(',') : value
}

function addEntry(proxies: BlockList, entry: string): void {
  const [address, bits] = entry.split('/')
  const family = isIP(address ?? '')
  if (address !== undefined && family !== 0) {
    const type = family === 6 ? 'ipv6' : 'ipv4'
    if (bits === undefined) {
      proxies.addAddress(address, type)
      return
    }
    if (/^\d{1,3}$/.test(bits) && Number(bits) <= (family === 6 ? 128 : 32)) {
      proxies.addSubnet(address, Number(bits), type)
      return
    }
  }
  throw new ChannelkitError(
    'ERR_INVALID_CONFIG',
    `http.trustedProxies has ${shown(entry)}; give an IP address or a subnet like 10.0.0.0/8`,
  )
}
