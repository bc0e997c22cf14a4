import { createReadStream } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { Channel, channelView, decodeRequest, defer, defineRouting, messageOf } from 'channelkit'
import express from 'express'
import { Hono } from 'hono'
import { describe, expect, it } from 'vitest'
import { deferred } from '../../support/deferred.ts'
import { carriers, type ServedSite, serveSite } from '../../support/http-site.ts'
import { RawClient } from '../../support/raw-client.ts'

const mebibyte = 1_048_576

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}

/** Waits until `isSo`, looking again every turn of the event loop. */
async function until(isSo: () => boolean): Promise<void> {
  while (!isSo()) await turn()
}

/** What waits in the backend, in messages. */
async function waitingIn(site: ServedSite): Promise<number> {
  const channels = await site.backend.channels()
  return channels.reduce((sum, { waiting }) => sum + waiting, 0)
}

function upload(port: number, size: number, path = '/'): Promise<Response> {
  let left = size
  const body = new ReadableStream<Uint8Array>({
    pull(controller) {
      const length = Math.min(left, 65_536)
      left -= length
      controller.enqueue(new Uint8Array(length))
      if (left === 0) controller.close()
    },
  })
  return fetch(`http://127.0.0.1:${port}${path}`, {
    method: 'POST',
    body,
    duplex: 'half',
  } as RequestInit)
}

describe.each(carriers)('HTTP streams over %s', (carrier) => {
  const http = { maxBodyBytes: 64 * mebibyte }

  it.each([
    [
      'a fetch app',
      { fetch: async (request: Request) => new Response(`${await sizeOf(request.body)}`) },
    ],
    [
      'a Node handler',
      (request: IncomingMessage, response: ServerResponse) => {
        let size = 0
        request.on('data', (chunk: Buffer) => {
          size += chunk.length
        })
        request.on('end', () => response.end(String(size)))
      },
    ],
  ])('bring 20 MiB to %s', async (_what, app) => {
    await using site = await serveSite(carrier, { app, http })

    const response = await upload(site.port, 20 * mebibyte)

    expect(await response.text()).toBe(String(20 * mebibyte))
  })

  it('bring a long body to a consumer that decodes the message', async () => {
    const routing = defineRouting({
      'http.request': async (message) => {
        const size = await sizeOf(decodeRequest(message).body)
        await message.replyChannel.send({ content: String(size) })
      },
    })
    await using site = await serveSite(carrier, { routing, http })

    const response = await upload(site.port, 3 * mebibyte)

    expect(await response.text()).toBe(String(3 * mebibyte))
  })

  it('hold the client back while the view does not read', async () => {
    const held = deferred()
    const app = {
      async fetch(request: Request) {
        const reader = request.body?.getReader()
        await reader?.read()
        await held.promise
        let size = 0
        for (let read = await reader?.read(); read?.value; read = await reader?.read()) size++
        return new Response(size > 0 ? 'read' : 'nothing')
      },
    }
    await using site = await serveSite(carrier, { app, http })
    const client = await RawClient.connect(site.port)
    const size = 40 * mebibyte

    client.write(`POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ${size}\r\n\r\n`)
    client.write(Buffer.alloc(size))
    await until(() => client.socket.bytesWritten > 2 * mebibyte)
    for (let turns = 0; turns < 200; turns++) await turn()

    expect(client.socket.writableLength).toBeGreaterThan(20 * mebibyte)
    expect(await waitingIn(site)).toBeLessThanOrEqual(4)
    held.resolve()
    expect((await client.answer()).body.toString()).toBe('read')
    client.close()
  })

  it('hold the view back while the client does not read', async () => {
    let sent = 0
    const app = (_request: IncomingMessage, response: ServerResponse) => {
      const write = (): void => {
        while (sent < 64 * mebibyte) {
          sent += 65_536
          if (!response.write(Buffer.alloc(65_536))) {
            response.once('drain', write)
            return
          }
        }
        response.end()
      }
      write()
    }
    await using site = await serveSite(carrier, { app })
    const client = await RawClient.connect(site.port)

    client.socket.pause()
    client.write('GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n')
    await until(() => sent > mebibyte)
    let before: number
    do {
      before = sent
      for (let turns = 0; turns < 500; turns++) await turn()
    } while (sent > before)

    expect(sent).toBeLessThan(32 * mebibyte)
    expect(await waitingIn(site)).toBeLessThanOrEqual(8)
    client.socket.resume()
    const all = await client.ended()
    expect(all.length).toBeGreaterThan(64 * mebibyte)
  })

  it('carry a file of 16 MiB from an Express app', async () => {
    const app = express()
    app.get('/', (_request, response) => {
      createReadStream('/dev/zero', { end: 16 * mebibyte - 1 }).pipe(response)
    })
    await using site = await serveSite(carrier, { app })

    const response = await fetch(`http://127.0.0.1:${site.port}/`)

    expect((await response.arrayBuffer()).byteLength).toBe(16 * mebibyte)
  })

  it('let each server-sent event through at once', async () => {
    const next: (() => void)[] = []
    const app = new Hono().get('/', () => {
      let count = 0
      const body = new ReadableStream<Uint8Array>(
        {
          async pull(controller) {
            count++
            controller.enqueue(new TextEncoder().encode(`data: ${count}\n\n`))
            await new Promise<void>((resolve) => next.push(resolve))
          },
        },
        { highWaterMark: 1 },
      )
      return new Response(body, { headers: { 'content-type': 'text/event-stream' } })
    })
    await using site = await serveSite(carrier, { app })
    const client = await RawClient.connect(site.port)

    client.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n')

    await client.until('data: 1\n\n')
    next.shift()?.()
    expect(await client.until('data: 2\n\n')).not.toContain('data: 3')
    client.close()
    await until(() => site.servers.counters()['requests.aborted'] === 1)
    next.shift()?.()
  })

  it.each([
    [
      'a fetch app',
      (onAbort: () => void) => ({
        fetch(request: Request) {
          request.signal.addEventListener('abort', onAbort)
          const body = new ReadableStream<Uint8Array>({
            start: (controller) => controller.enqueue(new TextEncoder().encode('begun')),
          })
          return new Response(body)
        },
      }),
    ],
    [
      'a Node handler, of its request',
      (onAbort: () => void) => (request: IncomingMessage, response: ServerResponse) => {
        request.on('close', () => {
          if (!response.writableFinished) onAbort()
        })
        response.write('begun')
      },
    ],
    [
      'a Node handler, of its response',
      (onAbort: () => void) => (_request: IncomingMessage, response: ServerResponse) => {
        response.on('close', onAbort)
        response.write('begun')
      },
    ],
  ])('tell %s that the client has left', async (_what, appOf) => {
    const left = deferred()
    const gone: string[] = []
    const routing = defineRouting({
      'http.disconnect': (message) => {
        gone.push(message.content.path)
      },
    })
    await using site = await serveSite(carrier, { app: appOf(() => left.resolve()), routing })
    const client = await RawClient.connect(site.port)

    client.write('GET /long HTTP/1.1\r\nHost: a\r\n\r\n')
    await client.until('begun')
    client.close()
    await left.promise

    await until(() => gone.length > 0)
    expect(gone).toEqual(['/long'])
    expect(site.log).toEqual([])
  })

  it('tell a view that reads a body that the client has left', async () => {
    const failed = deferred()
    let failure: unknown
    const app = {
      async fetch(request: Request) {
        await sizeOf(request.body).catch((error: unknown) => {
          failure = error
          failed.resolve()
        })
        return new Response('too late')
      },
    }
    await using site = await serveSite(carrier, { app, http })
    const client = await RawClient.connect(site.port)

    client.write('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n')
    client.write(Buffer.alloc(600_000))
    await until(() => site.servers.counters().requests === 1)
    client.close()

    await failed.promise
    expect(failure).toMatchObject({ name: 'AbortError' })
  })

  it('cut an answer that pauses longer than it may', async () => {
    const routing = defineRouting({
      'http.request': async (message) => {
        await message.replyChannel.send({ content: 'begun', more_content: true })
      },
    })
    await using site = await serveSite(carrier, { routing, http: { streamMs: 300 } })
    const client = await RawClient.connect(site.port)

    client.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n')
    const all = await client.ended()

    expect(all).toContain('begun')
    expect(all).not.toMatch(/\r\n0\r\n\r\n$/)
    expect(site.servers.counters()).toMatchObject({ 'requests.cut': 1 })
  })

  it('cut an answer whose view fails in its middle', async () => {
    const app = {
      fetch: () => {
        let count = 0
        const body = new ReadableStream<Uint8Array>({
          async pull(controller) {
            if (count++ === 0) controller.enqueue(new TextEncoder().encode('begun'))
            else {
              await turn()
              await turn()
              throw new Error('broken in the middle')
            }
          },
        })
        return new Response(body)
      },
    }
    await using site = await serveSite(carrier, { app })
    const client = await RawClient.connect(site.port)

    client.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n')
    const all = await client.ended()

    expect(all).toContain('begun')
    expect(all).not.toMatch(/\r\n0\r\n\r\n$/)
    expect(site.log).toHaveLength(1)
  })
})

describe.each(carriers)('Deferred answers over %s', (carrier) => {
  const routing = defineRouting({
    slow: async (message) => {
      const { path } = message.content
      await message.replyChannel.send({ status: 203, content: `slow ${String(path)}` })
    },
  })
  const express5 = express()
  express5.get('/x', channelView('slow'))
  express5.get('/d', async (request, response) => {
    const { backend, content } = messageOf(request)
    defer(request)
    await Channel('slow', { backend }).send(content)
    response.end('not this')
  })

  it.each([
    ['Hono', new Hono().get('/x', channelView('slow')), '/x'],
    ['a fetch app', { fetch: channelView('slow') }, '/x'],
    ['Express', express5, '/x'],
    ['an Express handler that defers', express5, '/d'],
  ])('come from a consumer behind %s', async (_what, app, path) => {
    await using site = await serveSite(carrier, { app, routing })

    const response = await fetch(`http://127.0.0.1:${site.port}${path}`)

    expect(response.status).toBe(203)
    expect(await response.text()).toBe(`slow ${path}`)
    expect(site.log).toEqual([])
  })

  it('hold no worker', async () => {
    const waiting: string[] = []
    const app = new Hono().get('/:n', (c) => {
      waiting.push(messageOf(c).content.reply_channel)
      return defer(c)
    })
    await using site = await serveSite(carrier, { app, worker: { concurrency: 1 } })

    const responses = Promise.all([1, 2, 3].map((n) => fetch(`http://127.0.0.1:${site.port}/${n}`)))
    await until(() => waiting.length === 3)
    for (const name of waiting) {
      await Channel(name, { backend: site.backend }).send({ content: 'at last' })
    }

    const texts = await Promise.all((await responses).map((response) => response.text()))
    expect(texts).toEqual(['at last', 'at last', 'at last'])
  })

  it('are refused for a request from elsewhere', () => {
    expect(() => defer(new Request('http://localhost/'))).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT' }),
    )
  })
})

async function sizeOf(body: ReadableStream<Uint8Array> | null): Promise<number> {
  let size = 0
  if (body) for await (const chunk of body) size += chunk.byteLength
  return size
}
