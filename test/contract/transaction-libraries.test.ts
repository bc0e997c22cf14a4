import { Channel, inTransaction, joinTransaction, type Site, setup } from 'channelkit'
import type { ChannelBackend } from 'channelkit/backend'
import { SqliteBackend } from 'channelkit/sqlite'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type SqlPlace, sqlPlaces } from '../support/sql-places.ts'
import { libraries, type OpenedLibrary } from '../support/transaction-openers.ts'

const cases = Object.entries(libraries).flatMap(([database, byName]) =>
  Object.entries(byName).map(([library, openLibrary]) => ({ database, library, openLibrary })),
)

describe.each(cases)('inTransaction by $library on $database', ({ database, openLibrary }) => {
  let place: SqlPlace
  let site: Site
  let backend: ChannelBackend
  let opened: OpenedLibrary

  beforeAll(async () => {
    place = await (sqlPlaces[database] as () => Promise<SqlPlace>)()
    const url = await place.newUrl()
    // Two libraries of SQLite in one process do not see each other's locks.
    const file = url.slice('sqlite:'.length)
    const own = database === 'SQLite' ? new SqliteBackend({ file, driver: 'libsql' }) : url
    site = await setup({ channelBackends: { default: { backend: own } } })
    backend = site.backend()
    await backend.open()
    opened = await openLibrary(url)
  })

  afterAll(async () => {
    await opened.close()
    await site.close()
    await place[Symbol.asyncDispose]()
  })

  it('sends when it commits, and never when it rolls back', async () => {
    const { open, query } = opened
    await inTransaction(open, async (transaction) => {
      await query(transaction, 'CREATE TABLE note (id INTEGER PRIMARY KEY)')
    })

    for (let n = 0; n < 10; n++) {
      await inTransaction(open, async (transaction) => {
        await query(transaction, `INSERT INTO note (id) VALUES (${n})`)
        await Channel('news').send({ n, text: `"it's" ? :n $1 \\ ${'ü'.repeat(n)}` })
        await joinTransaction(transaction, () => Channel('joined').send({ n }))
        if (n % 2 === 1) throw new Error('no')
      }).catch((error: Error) => expect(error.message).toBe('no'))
    }

    const found: unknown[] = []
    while (found.length < 10) {
      const some = await backend.receive(['news', 'joined'], { max: 20, waitMs: 5_000 })
      if (some.length === 0) break
      found.push(...some.map(({ channel, content }) => ({ channel, ...content })))
    }
    const expected = [0, 2, 4, 6, 8].map((n) => ({
      channel: 'news',
      n,
      text: `"it's" ? :n $1 \\ ${'ü'.repeat(n)}`,
    }))
    expect(found).toHaveLength(10)
    expect(found).toEqual(expect.arrayContaining(expected))
    expect(found).toEqual(
      expect.arrayContaining([0, 2, 4, 6, 8].map((n) => ({ channel: 'joined', n }))),
    )
  })

  it('says that a channel is full, and rolls back', async () => {
    const { open, query } = opened
    const full = inTransaction(open, async (transaction) => {
      await query(transaction, 'INSERT INTO note (id) VALUES (100)')
      for (let n = 0; n < 1_001; n++) await Channel('full').send({ n })
    })

    await expect(full).rejects.toMatchObject({ code: 'ERR_CHANNEL_FULL' })
    await inTransaction(open, async (transaction) => {
      await query(transaction, 'INSERT INTO note (id) VALUES (100)')
    })
  })
})
