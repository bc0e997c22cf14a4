/**
 * A worker process on the channel `jobs`, which it acknowledges after the run, for tests and
 * benchmarks: `node --import tsx delivery-process.ts <backend URL> <log> <lease ms> <concurrency>`.
 *
 * The consumer waits for `content.ms`, and then appends `<n> <attempts> <pid> <ms since the epoch>` to
 * the log; with `content.fails` it throws instead while there were fewer attempts than that. SIGTERM
 * stops the worker.
 */
import { openSync, writeSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { openBackendUrl } from '../../src/backends/open-url.ts'
import { Worker } from '../../src/worker.ts'

const [url = '', log = '', leaseMs, concurrency] = process.argv.slice(2)
const backend = await openBackendUrl(url, { root: process.cwd() })
const output = openSync(log, 'a')

const worker = new Worker({
  backend,
  routing: new Map([
    [
      'jobs',
      async ({ content: { n, ms, fails }, attempts }) => {
        await sleep(Number(ms ?? 0))
        if (attempts < Number(fails ?? 0)) throw new Error(`job ${n} fails`)
        writeSync(output, `${n} ${attempts} ${process.pid} ${Date.now()}\n`)
      },
    ],
  ]),
  declaration: () => ({ acknowledge: 'afterRun', maxAttempts: 50, retryDelayMs: 100 }),
  holdLeaseMs: Number(leaseMs),
  concurrency: Number(concurrency),
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
