import type { AddressInfo, Socket } from 'node:net'
import { Duplex } from 'node:stream'
import type { HttpRequest } from '../message-formats.ts'

/**
 * Stands for the client's connection behind a request that came in a message: has its addresses,
 * and swallows what Node's response writes, since that has been sent as a message already.
 */
export class MemorySocket extends Duplex {
  readonly remoteAddress: string
  readonly remotePort: number
  readonly remoteFamily: string
  readonly localAddress: string
  readonly localPort: number
  readonly encrypted: boolean
  /** Settles when everything the app has written is sent. */
  sent: Promise<void> = Promise.resolve()

  constructor({ client, server, scheme }: HttpRequest) {
    super({ emitClose: true, autoDestroy: false })
    this.remoteAddress = client[0]
    this.remotePort = client[1]
    this.remoteFamily = client[0].includes(':') ? 'IPv6' : 'IPv4'
    this.localAddress = server[0]
    this.localPort = server[1]
    this.encrypted = scheme === 'https'
    this.on('error', () => {})
  }

  /** As what Node's classes take it for. */
  get asSocket(): Socket {
    return this as unknown as Socket
  }

  override _read(): void {}

  override _write(_chunk: unknown, _encoding: string, callback: () => void): void {
    this.sent.then(callback, callback)
  }

  address(): AddressInfo {
    return { address: this.localAddress, port: this.localPort, family: this.remoteFamily }
  }

  setTimeout(): this {
    return this
  }

  setNoDelay(): this {
    return this
  }

  setKeepAlive(): this {
    return this
  }

  ref(): this {
    return this
  }

  unref(): this {
    return this
  }

  destroySoon(): void {
    this.destroy()
  }
}
