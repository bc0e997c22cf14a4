import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'

/** Stands between clients and a server, to take the server away from them. */
export interface Proxy {
  /** Port on 127.0.0.1. */
  readonly port: number
  /** Breaks every connection and takes no new one, until the returned function has run. */
  cut(): Promise<() => Promise<void>>
  /** From now on nothing that the server says on a connection of now arrives, until they are cut. */
  silence(): void
  /** From now on new connections lead to another server; those of now stay. */
  lead(socketPath: string): void
  close(): Promise<void>
}

/** Starts a proxy in front of a server's Unix socket. */
export async function startProxy(firstPath: string): Promise<Proxy> {
  let socketPath = firstPath
  const sockets = new Set<Socket>()
  const pairs = new Map<Socket, Socket>()
  const server = createServer({ noDelay: true }, (client) => {
    const upstream = connect(socketPath)
    pairs.set(upstream, client)
    for (const [from, to] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      sockets.add(from)
      from.pipe(to)
      from.on('error', () => to.destroy())
      from.on('close', () => {
        sockets.delete(from)
        pairs.delete(from)
        to.destroy()
      })
    }
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const stop = async (): Promise<void> => {
    const closed = once(server, 'close')
    server.close()
    for (const socket of sockets) socket.destroy()
    await closed
  }
  return {
    port,
    async cut() {
      await stop()
      return async () => {
        server.listen(port, '127.0.0.1')
        await once(server, 'listening')
      }
    },
    silence() {
      for (const [upstream, client] of pairs) {
        upstream.unpipe(client)
        upstream.resume()
      }
    },
    lead(path) {
      socketPath = path
    },
    async close() {
      if (server.listening) await stop()
    },
  }
}
