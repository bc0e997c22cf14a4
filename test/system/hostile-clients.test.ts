import { type ChildProcess, fork } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { WebSocket } from 'ws'
import { createSiteFolder, type SiteFolder, withoutTestRunner } from '../support/cli.ts'

// A site whose process tells its counters and memory, and echoes.
const server = `
import { createServer } from 'node:http'
import { defineRouting } from 'channelkit'
import { attach } from 'channelkit/server'
const server = createServer()
const attached = await attach(server, {
  websocket: { maxBufferedBytes: 1_048_576, maxSockets: 12_000 },
  channelBackends: {
    default: {
      backend: 'memory:',
      routing: defineRouting({
        'websocket.receive': async (message) => {
          const { content } = message.content
          const times = content === 'flood' ? 200 : 1
          const answer = content === 'flood' ? 'x'.repeat(65_536) : content
          for (let index = 0; index < times; index++) {
            await message.replyChannel.send({ content: answer })
          }
        },
      }),
    },
  },
}, { worker: true })
server.listen(0, '127.0.0.1', () => process.send({ port: server.address().port }))
process.on('message', () => {
  global.gc()
  process.send({
    counters: attached.counters(),
    socketCount: attached.socketCount,
    rssBytes: process.memoryUsage().rss,
  })
})
`

interface Report {
  readonly counters: Readonly<Record<string, number>>
  readonly socketCount: number
  readonly rssBytes: number
}

const megabyte = 1_048_576

describe('hostile clients', () => {
  let site: SiteFolder
  let child: ChildProcess
  let port: number

  beforeAll(async () => {
    site = await createSiteFolder({ 'server.mjs': server })
    child = fork(join(site.path, 'server.mjs'), {
      cwd: site.path,
      env: withoutTestRunner(process.env),
      execArgv: ['--expose-gc'],
    })
    const [message] = (await once(child, 'message')) as [{ port: number }]
    port = message.port
  })

  afterAll(async () => {
    child.kill('SIGKILL')
    await site.dispose()
  })

  async function report(): Promise<Report> {
    child.send('report')
    const [answer] = (await once(child, 'message')) as [Report]
    return answer
  }

  /** Waits until no socket is left; the process must still answer. */
  async function allGone(): Promise<Report> {
    for (let tries = 0; ; tries++) {
      const latest = await report()
      if (latest.socketCount === 0 || tries > 100) return latest
      await sleep(100)
    }
  }

  async function expectEcho(): Promise<void> {
    const socket = new WebSocket(`ws://127.0.0.1:${port}/`)
    await once(socket, 'open')
    socket.send('still there?')
    const [data] = (await once(socket, 'message')) as [Buffer]
    socket.terminate()
    expect(String(data)).toBe('still there?')
  }

  async function rawConnection(): Promise<Socket> {
    const socket = connect(port, '127.0.0.1')
    socket.on('error', () => {})
    await once(socket, 'connect')
    return socket
  }

  /** A socket past its handshake whose frames are written by hand. */
  async function upgraded(): Promise<Socket> {
    const socket = await rawConnection()
    socket.write(
      'GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n',
    )
    const [head] = (await once(socket, 'data')) as [Buffer]
    expect(String(head)).toMatch(/^HTTP\/1\.1 101 /)
    return socket
  }

  /** The code in the close frame the server sends. */
  async function closeCode(socket: Socket): Promise<number> {
    const chunks: Buffer[] = []
    socket.on('data', (chunk) => chunks.push(chunk))
    await once(socket, 'close')
    const bytes = Buffer.concat(chunks)
    expect(bytes[0]).toBe(0x88)
    return bytes.readUInt16BE(2)
  }

  const mask = Buffer.from([0, 0, 0, 0])

  it.each([
    ['a frame that is not masked', Buffer.from([0x81, 0x01, 0x61]), 1002, 'WS_ERR_EXPECTED_MASK'],
    ['a reserved bit', Buffer.from([0xc1, 0x80, ...mask]), 1002, 'WS_ERR_UNEXPECTED_RSV_1'],
    ['an unknown opcode', Buffer.from([0x83, 0x80, ...mask]), 1002, 'WS_ERR_INVALID_OPCODE'],
    [
      'text that is not UTF-8',
      Buffer.from([0x81, 0x82, ...mask, 0xc3, 0x28]),
      1007,
      'WS_ERR_INVALID_UTF8',
    ],
    [
      'a length of 64 MiB',
      Buffer.from([0x82, 0xff, 0, 0, 0, 0, 4, 0, 0, 0, ...mask]),
      1009,
      'WS_ERR_UNSUPPORTED_MESSAGE_LENGTH',
    ],
    [
      'a length beyond 2^53',
      Buffer.from([0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, ...mask]),
      1009,
      'WS_ERR_UNSUPPORTED_DATA_PAYLOAD_LENGTH',
    ],
  ])('closes on %s, and counts it', async (_what, frame, code, fault) => {
    const before = await report()
    const socket = await upgraded()

    socket.write(frame)

    expect(await closeCode(socket)).toBe(code)
    const after = await report()
    const name = `frames.${fault}`
    expect((after.counters[name] ?? 0) - (before.counters[name] ?? 0)).toBe(1)
    await expectEcho()
  })

  it('closes a socket whose fragments have no end, long before they fill memory', async () => {
    const before = await report()
    const socket = await upgraded()
    let isClosed = false
    socket.on('close', () => {
      isClosed = true
    })

    socket.write(Buffer.from([0x01, 0x80, ...mask]))
    const fragments = Buffer.concat(
      Array.from({ length: 1_000 }, () => Buffer.from([0x00, 0x80, ...mask])),
    )
    for (let round = 0; round < 1_000 && !isClosed; round++) {
      if (!socket.write(fragments))
        await Promise.race([once(socket, 'drain'), once(socket, 'close')])
    }
    socket.destroy()

    const after = await allGone()
    expect(after.rssBytes - before.rssBytes).toBeLessThan(64 * megabyte)
    await expectEcho()
  })

  it('answers handshakes that are none with an error and goes on', async () => {
    const handshakes = [
      ['POST / HTTP/1.1', 'Sec-WebSocket-Version: 13', 400],
      ['GET / HTTP/1.1', 'Sec-WebSocket-Version: 7', 426],
      ['GET /%E0%A4%A HTTP/1.1', 'Sec-WebSocket-Version: 13', 400],
      ['GET / HTTP/1.1', 'Sec-WebSocket-Version: 13\r\nHost: two', 400],
      ['GET / HTTP/1.1', 'Sec-WebSocket-Version: 13\r\nOrigin: https://evil.example', 403],
    ] as const
    const statuses: number[] = []
    for (const [line, header] of handshakes) {
      const socket = await rawConnection()
      socket.write(
        `${line}\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n${header}\r\n\r\n`,
      )
      const [head] = (await once(socket, 'data')) as [Buffer]
      const status = Number(String(head).slice(9, 12))
      statuses.push(status)
      const names = /^Upgrade: websocket\r\nSec-WebSocket-Version: 13\r$/m
      expect(names.test(String(head))).toBe(status === 426)
      socket.destroy()
    }

    expect(statuses).toEqual(handshakes.map(([, , status]) => status))
    await expectEcho()
  })

  it('survives random bytes, before and after the handshake', async () => {
    for (let round = 0; round < 200; round++) {
      const socket = round % 2 === 0 ? await rawConnection() : await upgraded()
      socket.write(randomBytes(2_000))
      await Promise.race([once(socket, 'close'), sleep(20)])
      socket.destroy()
    }

    expect((await allGone()).socketCount).toBe(0)
    await expectEcho()
  })

  it('gives the memory back after 10,000 connections opened and dropped, half of them mid-handshake', async () => {
    await dropConnections(1_000)
    const before = await allGone()

    await dropConnections(10_000)

    const after = await allGone()
    expect(after.socketCount).toBe(0)
    expect(after.rssBytes - before.rssBytes).toBeLessThan(48 * megabyte)
    await expectEcho()
  })

  async function dropConnections(count: number): Promise<void> {
    for (let opened = 0; opened < count; opened += 200) {
      const sockets = await Promise.all(
        Array.from({ length: 200 }, (_, index) => (index % 2 === 0 ? upgraded() : rawConnection())),
      )
      for (const [index, socket] of sockets.entries()) {
        if (index % 2 === 1) socket.write('GET / HTTP/1.1\r\nUpgrade: webs')
        if (index % 4 === 0) socket.end()
        else socket.resetAndDestroy()
      }
      await sleep(1)
    }
  }

  it('closes a client that does not read with 1013, while others do not notice', async () => {
    const before = await report()
    const slow = await upgraded()
    slow.pause()
    const payload = Buffer.from('flood')
    const flood = Buffer.concat([Buffer.from([0x81, 0x80 | payload.length, ...mask]), payload])

    // 125 MiB in all for a client that takes none of them.
    for (let round = 0; round < 10; round++) slow.write(flood)
    let latest = await report()
    for (
      let tries = 0;
      (latest.counters['closed.slow-reader'] ?? 0) === 0 && tries < 100;
      tries++
    ) {
      await expectEcho()
      latest = await report()
    }

    expect(latest.counters['closed.slow-reader']).toBe(1)
    expect(latest.rssBytes - before.rssBytes).toBeLessThan(64 * megabyte)
    slow.destroy()
    await allGone()
  })
})
