/**
 * A worker process with one linearized consumer, for tests and benchmarks:
 * `node --import tsx linearize-process.ts <backend URL> <log> <lease ms> [plain]`.
 *
 * The consumer appends `begin <client> <n> <pid> <ms since the epoch>` to the log, waits for
 * `content.ms` if there is any, and appends `end ...`, or `lost ...` when its turn had lapsed; with
 * `plain` it is not linearized. SIGTERM stops the worker.
 */
import { openSync, writeSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { openBackendUrl } from '../../src/backends/open-url.ts'
import type { Message } from '../../src/message.ts'
import { Worker } from '../../src/worker.ts'
import { linearize } from '../../src/wrappers/linearize.ts'

const [url = '', log = '', leaseMs, mode] = process.argv.slice(2)
const backend = await openBackendUrl(url, { root: process.cwd() })
const output = openSync(log, 'a')

async function work(message: Message): Promise<void> {
  const { n, ms, reply_channel: client } = message.content
  const note = (what: string): void => {
    writeSync(output, `${what} ${client} ${n} ${process.pid} ${Date.now()}\n`)
  }
  note('begin')
  if (typeof ms === 'number') await sleep(ms)
  else await Promise.resolve()
  note(message.signal.aborted ? 'lost' : 'end')
}

const consumer = mode === 'plain' ? work : linearize(work)
const channels = ['connect', 'receive', 'disconnect']
const worker = new Worker({
  backend,
  routing: new Map(channels.map((channel) => [channel, consumer])),
  lineLeaseMs: Number(leaseMs),
})
await worker.start()
process.send?.({ ready: true })
process.once('SIGTERM', async () => {
  await worker.stop()
  await backend.close()
  process.disconnect()
})
// Whose parent has gone has nothing to do.
process.once('disconnect', () => process.exit())
process.on('message', (message) => {
  if (message === 'usage') process.send?.(process.cpuUsage())
})
