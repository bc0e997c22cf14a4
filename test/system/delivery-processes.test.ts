import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Channel } from 'channelkit'
import type { ChannelBackend } from 'channelkit/backend'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { openBackendUrl } from '../../src/backends/open-url.ts'
import { account, DeliveryWorkers, sendJobs } from '../support/delivery-workers.ts'
import { redisPlaces } from '../support/redis-places.ts'
import { type SqlPlace, sqlPlaces } from '../support/sql-places.ts'

const places = { Redis: redisPlaces.Redis, SQLite: sqlPlaces.SQLite }

describe.each(Object.entries(places))('workers on %s', (_name, start) => {
  let place: SqlPlace
  let directory: string
  let url: string
  let backend: ChannelBackend

  beforeAll(async () => {
    if (!start) throw new Error('there is no such place')
    place = await start()
    directory = await mkdtemp(join(tmpdir(), 'channelkit-delivery-'))
  })

  afterAll(async () => {
    await place[Symbol.asyncDispose]()
    await rm(directory, { recursive: true })
  })

  beforeEach(async () => {
    url = await place.newUrl()
    backend = await openBackendUrl(url, { root: directory })
  })

  afterEach(() => backend.close())

  it('lose no job that is acknowledged after the run, though they are killed', async () => {
    const count = 1_500
    await using workers = await DeliveryWorkers.open(url, 1_500, 10)
    await workers.start()
    await workers.start()
    const jobs = Array.from({ length: count }, (_, n) => ({
      channel: 'jobs',
      content: { n, ms: 10 + (n % 30), ...(n % 50 === 0 && { fails: 2 }) },
    }))
    const sending = sendJobs(backend, jobs)
    for (let kill = 0; kill < 3; kill++) {
      await sleep(700)
      await workers.killOldest()
      await workers.start()
    }
    await sending
    const done = await workers.until(count, 60_000)

    const { missing, duplicates } = account(done, count)
    expect(missing).toBe(0)
    // At most what the killed ones were at, each once.
    expect(duplicates).toBeLessThanOrEqual(30)
    expect(done.filter(({ n }) => n % 50 === 0).every(({ attempts }) => attempts >= 2)).toBe(true)
    expect(done.some(({ n, attempts }) => n % 50 !== 0 && attempts > 0)).toBe(true)
  })

  it('run every job once while they are stopped as by a deploy', async () => {
    const count = 600
    await using workers = await DeliveryWorkers.open(url, 1_500, 10)
    await workers.start()
    await workers.start()
    const jobs = Array.from({ length: count }, (_, n) => ({
      channel: 'jobs',
      content: { n, ms: 10 + (n % 30) },
    }))
    const sending = sendJobs(backend, jobs)
    for (let stop = 0; stop < 3; stop++) {
      await sleep(300)
      await workers.stopOldest()
      await workers.start()
    }
    await sending
    const done = await workers.until(count, 60_000)
    await sleep(2_000)

    expect(account(await workers.done(), count)).toEqual({ missing: 0, duplicates: 0 })
    expect(done.every(({ attempts }) => attempts === 0)).toBe(true)
  })

  it('run what is for later once and in time, though its sender and a worker are killed', async () => {
    const count = 60
    await using workers = await DeliveryWorkers.open(url, 1_500, 10)
    const times = Array.from({ length: count }, (_, n) => Date.now() + 4_000 + n * 25)
    for (const [n, at] of times.entries()) await Channel('jobs', { backend }).send({ n }, { at })
    await backend.close()
    await workers.start()
    await workers.start()
    await workers.killOldest()
    const done = await workers.until(count, 20_000)

    expect(account(done, count)).toEqual({ missing: 0, duplicates: 0 })
    const late = done.map(({ n, at }) => at - (times[n] ?? 0))
    expect(Math.min(...late)).toBeGreaterThanOrEqual(0)
    expect(Math.max(...late)).toBeLessThan(1_000)
  })
})
