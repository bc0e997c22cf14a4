import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { defineRouting, type Site, setup } from 'channelkit'
import { MemoryBackend } from 'channelkit/memory'
import { attach } from 'channelkit/server'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { WebSocket } from 'ws'

describe('attach', () => {
  let server: Server

  beforeEach(async () => {
    server = createServer()
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
  })

  afterEach(() => {
    server.close()
    server.closeAllConnections()
  })

  function siteWith(
    backend: MemoryBackend,
    routing: Parameters<typeof defineRouting>[0],
  ): Promise<Site> {
    return setup({
      worker: { concurrency: 2 },
      channelBackends: { default: { backend, routing: defineRouting(routing) } },
    })
  }

  it('runs what still waits in this process before close() ends', async () => {
    const gone: unknown[] = []
    const site = await siteWith(new MemoryBackend(), {
      'websocket.disconnect': async (message) => {
        await sleep(2)
        gone.push(message.content.code)
      },
    })
    const attached = await attach(server, site, { worker: true })
    const { port } = server.address() as AddressInfo
    const sockets = Array.from({ length: 60 }, () => new WebSocket(`ws://127.0.0.1:${port}/`))
    await Promise.all(sockets.map((socket) => once(socket, 'open')))

    await attached.close()

    expect(gone).toEqual(Array(60).fill(1012))
    await site.close()
  })

  it('stops the workers it has started when it fails', async () => {
    class WithoutInboxes extends MemoryBackend {
      override async openInbox(): Promise<never> {
        throw new Error('no inbox today')
      }
    }
    const backend = new WithoutInboxes()
    const site = await siteWith(backend, { 'websocket.receive': () => {} })

    await expect(attach(server, site, { worker: true })).rejects.toThrow('no inbox today')

    expect(await backend.processes()).toEqual([])
    await site.close()
  })
})
