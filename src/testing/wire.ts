import { type Duplex, duplexPair } from 'node:stream'
import type { Address } from '../message-formats.ts'

/** Both ends of a connection that never leaves the process. */
export interface Wire {
  readonly client: Duplex
  readonly server: Duplex
}

/**
 * Makes a connection out of memory. A side that does not read makes the other's writes wait, as on
 * a real one, and destroying one end ends the other.
 *
 * @param from - where the client seems to connect from.
 * @param isSecure - whether it seems to speak TLS.
 */
export function newWire(from: Address, isSecure: boolean): Wire {
  const [client, server] = duplexPair()
  const [remoteAddress, remotePort] = from
  Object.assign(server, {
    remoteAddress,
    remotePort,
    localAddress: '127.0.0.1',
    localPort: isSecure ? 443 : 80,
    encrypted: isSecure,
  })
  client.once('close', () => server.destroy())
  server.once('close', () => client.destroy())
  return { client, server }
}
