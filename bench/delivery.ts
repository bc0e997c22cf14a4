/**
 * Jobs that are acknowledged after the run, while workers are killed:
 * `node --import tsx bench/delivery.ts [jobs] [Redis|PostgreSQL|SQLite|MariaDB ...]`.
 *
 * Four workers run up to ten jobs each, which take 20 to 60 ms; every two seconds the oldest worker is
 * killed by SIGKILL and another started. Prints how many jobs never ran, and how many runs were one too many.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { openBackendUrl } from '../src/backends/open-url.ts'
import { account, DeliveryWorkers, sendJobs } from '../test/support/delivery-workers.ts'
import { redisPlaces } from '../test/support/redis-places.ts'
import { sqlPlaces } from '../test/support/sql-places.ts'

const [given = '20000', ...names] = process.argv.slice(2)
const count = Number(given)
const places = { ...redisPlaces, ...sqlPlaces }
const killEveryMs = 2_000
const leaseMs = 3_000
const mostMs = 300_000

for (const name of names.length > 0 ? names : ['Redis', 'PostgreSQL']) {
  const start = places[name]
  if (!start) throw new Error(`there is no ${name}; name one of ${Object.keys(places).join(', ')}`)
  await using place = await start()
  const url = await place.newUrl()
  const backend = await openBackendUrl(url, { root: process.cwd() })
  await using workers = await DeliveryWorkers.open(url, leaseMs, 10)
  for (let worker = 0; worker < 4; worker++) await workers.start()
  let kills = 0
  let isOver = false
  const killing = (async () => {
    for (;;) {
      await sleep(killEveryMs)
      if (isOver) return
      await workers.killOldest()
      kills++
      // Not waited for, or on a busy machine the kills would come more seldom.
      workers.start().catch(() => {})
    }
  })()
  const beganAt = performance.now()
  await sendJobs(
    backend,
    Array.from({ length: count }, (_, n) => ({
      channel: 'jobs',
      content: { n, ms: 20 + ((n * 7) % 41) },
    })),
  )
  const done = await workers.until(count, mostMs)
  const seconds = (performance.now() - beganAt) / 1_000
  isOver = true
  await killing
  // What would come again comes within a lease.
  await sleep(2 * leaseMs)
  const { missing, duplicates } = account(await workers.done(), count)
  const again = done.filter(({ attempts }) => attempts > 0).length
  console.log(
    `${name}: ${count} jobs in ${seconds.toFixed(1)} s, ${kills} workers killed; missing ${missing}, run again ${again}, of which duplicates ${duplicates}`,
  )
  await backend.close()
}
