// One long upload and one long download, with the memory of the servers: see bench/README.md.
// node --import tsx bench/http-stream.ts [MiB]
import { mkdtemp, rm } from 'node:fs/promises'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { MeasuredServer } from './measured-server.ts'

const mebibyte = 1_048_576
const size = Number(process.argv[2] ?? 1_024) * mebibyte

function download(port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const asked = request({ port, path: `/?${size}` }, (response) => {
      let received = 0
      response.on('data', (chunk: Buffer) => {
        received += chunk.length
      })
      response.on('end', () => resolve(received))
      response.on('error', reject)
    })
    asked.on('error', reject).end()
  })
}

function upload(port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const headers = { 'content-length': size }
    const asked = request({ port, method: 'POST', headers }, (response) => {
      response.setEncoding('utf8').on('data', (text: string) => resolve(Number(text)))
    })
    asked.on('error', reject)
    const chunk = Buffer.alloc(65_536)
    let left = size
    const write = (): void => {
      while (left > 0) {
        left -= chunk.length
        if (!asked.write(chunk)) {
          asked.once('drain', write)
          return
        }
      }
      asked.end()
    }
    write()
  })
}

async function measure(
  what: string,
  servers: readonly MeasuredServer[],
  transfer: (port: number) => Promise<number>,
): Promise<void> {
  const peaks = servers.map(() => 0)
  const look = async (): Promise<void> => {
    for (const [index, server] of servers.entries()) {
      const { rssBytes } = await server.usage()
      peaks[index] = Math.max(peaks[index] ?? 0, rssBytes)
    }
  }
  await look()
  const before = [...peaks]
  let isDone = false
  const looking = (async () => {
    while (!isDone) {
      await look()
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
  })()
  const start = performance.now()
  const bytes = await transfer(servers[0]?.port ?? 0)
  const seconds = (performance.now() - start) / 1_000
  isDone = true
  await looking
  const memory = peaks.map(
    (peak, index) =>
      `${Math.round((before[index] ?? 0) / mebibyte)} to ${Math.round(peak / mebibyte)} MiB`,
  )
  console.log(
    `${what.padEnd(34)} ${bytes === size ? 'whole' : `WRONG, ${bytes} bytes`} ${Math.round(size / mebibyte / seconds)} MiB/s, memory ${memory.join(' and ')}`,
  )
}

const direct = await MeasuredServer.start('http-channelkit', ['stream', 'memory:'])
await measure('upload by memory', [direct], upload)
await measure('download by memory', [direct], download)
await direct.stop()
const folder = await mkdtemp(join(tmpdir(), 'channelkit-bench-'))
const url = `sqlite:${join(folder, 'channels.sqlite')}`
const worker = await MeasuredServer.start('http-channelkit', ['stream', url, 'worker'])
const server = await MeasuredServer.start('http-channelkit', ['stream', url, 'interface'])
await measure('upload by SQLite, 2 processes', [server, worker], upload)
await measure('download by SQLite, 2 processes', [server, worker], download)
await server.stop()
await worker.stop()
await rm(folder, { recursive: true })
