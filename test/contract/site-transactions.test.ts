import { setTimeout as sleep } from 'node:timers/promises'
import {
  afterCommit,
  Channel,
  defineChannels,
  Group,
  inTransaction,
  joinTransaction,
  type Site,
  setup,
} from 'channelkit'
import type { ChannelBackend } from 'channelkit/backend'
import { SqliteBackend } from 'channelkit/sqlite'
import mysql from 'mysql2/promise'
import pg from 'pg'
import { Sequelize } from 'sequelize'
import { DataSource } from 'typeorm'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { z } from 'zod'
import { openSiteDatabase, type SiteDatabase } from '../support/site-databases.ts'
import { openServerUrl, type SqlPlace, sqlPlaces } from '../support/sql-places.ts'

const channels = defineChannels({
  numbers: {
    schema: z.object({ n: z.number() }).refine(async ({ n }) => {
      await new Promise(setImmediate)
      return n >= 0
    }),
  },
})

async function takeAll(backend: ChannelBackend, channel: string): Promise<unknown[]> {
  const contents: unknown[] = []
  while (true) {
    const messages = await backend.receive([channel], { max: 100, waitMs: 0 })
    if (messages.length === 0) return contents
    contents.push(...messages.map(({ content }) => content))
  }
}

describe.each(Object.entries(sqlPlaces))('inTransaction on %s', (name, openPlace) => {
  let place: SqlPlace
  let site: Site
  let other: Site
  let backend: ChannelBackend
  let database: SiteDatabase
  let open: (expiryMs: number, delayedCapacity?: number) => Promise<ChannelBackend>

  beforeAll(async () => {
    place = await openPlace()
  })

  afterAll(() => place[Symbol.asyncDispose]())

  beforeEach(async () => {
    const url = await place.newUrl()
    open = async (expiryMs, delayedCapacity = 1_000) => {
      const options = { expiryMs, delayedCapacity }
      if (name !== 'SQLite') return openServerUrl(url, options)
      return new SqliteBackend({ file: url.slice('sqlite:'.length), ...options })
    }
    const config = {
      channelBackends: { default: { backend: url }, memory: { backend: 'memory:' } },
      channels,
    }
    other = await setup(config)
    site = await setup(config)
    backend = site.backend()
    await backend.open()
    database = await openSiteDatabase(url)
    await database.query('CREATE TABLE note (id INTEGER PRIMARY KEY)')
  })

  afterEach(async () => {
    await database.close()
    await site.close()
    await other.close()
  })

  const insert = (id: number) => database.query(`INSERT INTO note (id) VALUES (${id})`)
  const receive = (channel: string) => backend.receive([channel], { max: 100, waitMs: 5_000 })

  it('shows what was sent when it commits, in the order of the calls', async () => {
    const result = await inTransaction(database.connection, async () => {
      await insert(1)
      await Channel('news').send({ n: 1, text: 'ä'.repeat(100), bytes: new Uint8Array([0, 255]) })
      await Channel('news').send({ n: 2 })
      return 'done'
    })

    expect(result).toBe('done')
    expect((await receive('news')).map(({ content }) => content)).toEqual([
      { n: 1, text: 'ä'.repeat(100), bytes: new Uint8Array([0, 255]) },
      { n: 2 },
    ])
  })

  it('shows nothing before it commits', async () => {
    await inTransaction(database.connection, async () => {
      await Channel('news').send({ n: 1 })
      await joinTransaction(database.connection, () => Channel('news').send({ n: 2 }))

      expect(await takeAll(other.backend(), 'news')).toEqual([])
    })

    expect((await receive('news')).map(({ content }) => content.n).sort()).toEqual([1, 2])
  })

  it('lets others send while it is open, and is not skipped by who has read theirs', async () => {
    // SQLite has one writer at a time.
    if (!('query' in database.connection)) return
    await inTransaction(database.connection, async () => {
      await joinTransaction(database.connection, () => Channel('news').send({ n: 1 }))
      for (let n = 2; n < 12; n++) {
        const sentAt = performance.now()
        await other.backend().send([{ channel: 'news', content: { n } }])
        expect(performance.now() - sentAt).toBeLessThan(10_000)
      }
      expect(await takeAll(backend, 'news')).toHaveLength(10)
    })

    expect((await receive('news')).map(({ content }) => content)).toEqual([{ n: 1 }])
  })

  it('keeps the order of lines', async () => {
    const lines = { channels: ['news'], leaseMs: 5_000 }
    await inTransaction(database.connection, async () => {
      await Channel('news').send({ n: 1, reply_channel: 'ada!1' })
      await Channel('news').send({ n: 2, reply_channel: 'ada!1' })
    })
    await backend.send([{ channel: 'news', content: { n: 3, reply_channel: 'ada!1' } }])

    const [first] = await backend.receive(['news'], { max: 9, waitMs: 5_000, lines })
    const numbers = [first?.content.n]
    for (let turn = first?.turn; turn !== undefined; ) {
      const { messages } = await backend.advanceLines([turn], lines)
      turn = messages[0]?.turn
      if (messages[0]) numbers.push(messages[0].content.n)
    }
    expect(numbers).toEqual([1, 2, 3])
  })

  it('never shows what is rolled back, and leaves the connection ready', async () => {
    await expect(
      inTransaction(database.connection, async () => {
        await insert(1)
        await Channel('news').send({ n: 1 })
        await joinTransaction(database.connection, () => Channel('news').send({ n: 2 }))
        throw new Error('no')
      }),
    ).rejects.toThrow('no')

    await inTransaction(database.connection, () => Channel('news').send({ n: 3 }))
    expect((await receive('news')).map(({ content }) => content)).toEqual([{ n: 3 }])
    expect(await database.query('SELECT id FROM note')).toEqual([])
  })

  it('goes in front of what the same sender sends afterwards', async () => {
    for (let n = 0; n < 40; n += 2) {
      await inTransaction(database.connection, () => Channel('news').send({ n }))
      await Channel('news', { backend: n % 4 === 0 ? backend : other.backend() }).send({ n: n + 1 })
    }

    const numbers = (await takeAll(backend, 'news')).map((content) => (content as { n: number }).n)
    expect(numbers).toEqual(Array.from({ length: 40 }, (_, n) => n))
  })

  it('reaches every group member that is there when it commits', async () => {
    const inbox = await other.backend().openInbox<string>()
    const name = `Tür "1"\\\n`
    await inTransaction(database.connection, async () => {
      await Group(name).send({ n: 1 })
      if ('query' in database.connection) {
        await other.backend().groupAdd([{ group: name, channel: inbox.newChannel('late') }])
      }
    })
    if (!('query' in database.connection)) {
      // SQLite has one writer at a time.
      await other.backend().groupAdd([{ group: name, channel: inbox.newChannel('early') }])
      await inTransaction(database.connection, () => Group(name).send({ n: 1 }))
    }

    // What only tells of memberships makes a delivery of none.
    let deliveries = await inbox.receive({ max: 10, waitMs: 5_000 })
    if (deliveries.length === 0) deliveries = await inbox.receive({ max: 10, waitMs: 5_000 })
    expect(deliveries.map(({ content }) => content)).toEqual([{ n: 1 }])
  })

  it('reaches one client by its reply channel', async () => {
    const inbox = await other.backend().openInbox<string>()
    const channel = inbox.newChannel('ada')

    await inTransaction(database.connection, async () => {
      await Channel(channel).send({ n: 1 })
      await Channel(`${channel.split('!')[0]}-gone!x`).send({ n: 2 })
    })

    const [delivery] = await inbox.receive({ max: 10, waitMs: 5_000 })
    expect(delivery).toMatchObject({ channel, content: { n: 1 } })
  })

  it('rolls all back when a channel has no room', async () => {
    const full = inTransaction(database.connection, async () => {
      await insert(1)
      for (let n = 0; n < 1_001; n++) await Channel('news').send({ n })
      await Channel('other').send({})
    })

    await expect(full).rejects.toMatchObject({ code: 'ERR_CHANNEL_FULL' })
    expect(await database.query('SELECT id FROM note')).toEqual([])
    expect(await takeAll(backend, 'news')).toEqual([])
    await inTransaction(database.connection, async () => {
      for (let n = 0; n < 1_000; n++) await Channel('news').send({ n })
    })
    await backend.send([{ channel: 'other', content: {} }])
    await expect(
      inTransaction(database.connection, () => Channel('news').send({ n: 1 })),
    ).rejects.toMatchObject({ code: 'ERR_CHANNEL_FULL' })
    expect(await takeAll(backend, 'news')).toHaveLength(1_000)
  })

  it('rejects at once what cannot travel, and can go on', async () => {
    const codes: unknown[] = []
    await inTransaction(database.connection, async () => {
      for (const content of [{ at: new Date(0) }, { text: 'x'.repeat(1_048_577) }]) {
        await Channel('news')
          .send(content as never)
          .catch((error) => codes.push(error.code))
      }
      await Channel('numbers')
        .send({ n: -1 })
        .catch((error) => codes.push(error.code))
      void Channel('numbers').send({ n: 1 })
    })

    expect(codes).toEqual(['ERR_INVALID_CONTENT', 'ERR_CONTENT_TOO_LARGE', 'ERR_INVALID_CONTENT'])
    expect((await receive('numbers')).map(({ content }) => content)).toEqual([{ n: 1 }])
  })

  it('sends to other backends after the commit alone, and runs afterCommit', async () => {
    const steps: unknown[] = []
    const memory = site.backend('memory')
    await inTransaction(database.connection, async () => {
      await Channel('jobs', { backend: 'memory' }).send({ n: 1 })
      await Group('all', { backend: 'memory' }).send({ n: 2 })
      await afterCommit(async () => steps.push(await takeAll(memory, 'jobs')))
      steps.push(await takeAll(memory, 'jobs'))
    })
    await inTransaction(database.connection, async () => {
      await Channel('jobs', { backend: 'memory' }).send({ n: 3 })
      await afterCommit(() => steps.push('never'))
      throw new Error('no')
    }).catch(() => steps.push('rolled back'))

    expect(steps).toEqual([[], [], 'rolled back'])
    expect(await takeAll(memory, 'jobs')).toEqual([{ n: 1 }])
  })

  it('lets go at once what is to go immediately', async () => {
    if (!('query' in database.connection)) return
    await inTransaction(database.connection, async () => {
      await Channel('news').send({ n: 1 }, { immediately: true })
      throw new Error('no')
    }).catch(() => {})

    expect(await takeAll(backend, 'news')).toEqual([{ n: 1 }])
  })

  it('has what is for later in it too', async () => {
    const jobs = Channel('jobs')
    const ids: string[] = []
    await inTransaction(database.connection, async () => {
      ids.push(await jobs.send({ n: 1 }, { delayMs: 1_500 }))
      ids.push(await jobs.send({ n: 2 }, { delayMs: 600_000 }))
      await jobs.send({ n: 3 }, { id: 'third' })
      await jobs.send({ n: 4 }, { id: 'third' })
      await expect(jobs.send({ n: 5 }, { delayMs: -1 })).rejects.toThrow('delayMs')
      await expect(jobs.send({ n: 6 }, { id: 'a b' })).rejects.toThrow('the id')
    })
    await inTransaction(database.connection, async () => {
      await jobs.send({ n: 7 }, { delayMs: 0 })
      throw new Error('no')
    }).catch(() => {})

    const sentAt = performance.now()
    expect((await receive('jobs')).map(({ content }) => content)).toEqual([{ n: 3 }])
    expect((await receive('jobs')).map(({ content }) => content)).toEqual([{ n: 1 }])
    expect(performance.now() - sentAt).toBeGreaterThan(100)
    expect([await jobs.cancel(ids[0] ?? ''), await jobs.cancel(ids[1] ?? '')]).toEqual([
      false,
      true,
    ])
    expect(await takeAll(backend, 'jobs')).toEqual([])
  })

  it('stores what is for later with the commit, whoever looks for it', async () => {
    await joinTransaction(database.connection, () => Channel('jobs').send({ n: 1 }, { delayMs: 0 }))

    const [message] = await other.backend().receive(['jobs'], { max: 1, waitMs: 5_000 })
    expect(message?.content).toEqual({ n: 1 })
  })

  it('rolls all back when there is no room for what is for later', async () => {
    const small = await setup({ channelBackends: { default: { backend: await open(60_000, 3) } } })
    const jobs = Channel('jobs')
    const later = { delayMs: 600_000 }
    await jobs.send({}, { ...later, id: 'known' })
    const outcomes: unknown[] = []
    for (const count of [3, 2, 1]) {
      const sent = inTransaction(database.connection, async () => {
        await insert(count)
        for (let n = 0; n < count; n++) await jobs.send({ n }, later)
        await jobs.send({}, { ...later, id: 'known' })
      })
      outcomes.push(await sent.catch((error) => error.message))
      // Whoever writes next puts what was committed where it goes.
      await jobs.cancel('none')
    }

    const full = 'channel jobs holds 3 messages for later'
    expect(outcomes).toEqual([
      expect.stringContaining(full),
      undefined,
      expect.stringContaining(full),
    ])
    expect((await database.query('SELECT id FROM note')).map(({ id }) => id)).toEqual([2])
    await small.close()
  })

  it('is a savepoint within another on the same connection', async () => {
    const nested = (n: number, fails: boolean) =>
      inTransaction(database.connection, async () => {
        await insert(n)
        await Channel('news').send({ n })
        await afterCommit(() => steps.push(n))
        if (fails) throw new Error(`not ${n}`)
      })
    const steps: unknown[] = []
    await inTransaction(database.connection, async () => {
      await nested(1, false)
      await nested(2, true).catch((error) => steps.push(error.message))
      await inTransaction(database.connection, () => nested(3, false))
    })
    await inTransaction(database.connection, async () => {
      await nested(4, false)
      throw new Error('no')
    }).catch((error) => steps.push(error.message))

    expect(steps).toEqual(['not 2', 1, 3, 'no'])
    const rows = await database.query('SELECT id FROM note ORDER BY id')
    expect(rows.map(({ id }) => id)).toEqual([1, 3])
    expect((await receive('news')).map(({ content }) => content)).toEqual([{ n: 1 }, { n: 3 }])
  })

  it('lets nothing expire before the commit, and counts from it', async () => {
    await using short = Object.assign(
      await setup({ channelBackends: { default: { backend: await open(500) } } }),
      {
        [Symbol.asyncDispose]: () => short.close(),
      },
    )
    await short.backend().open()
    await inTransaction(database.connection, async () => {
      await joinTransaction(database.connection, () => Channel('news').send({ n: 1 }))
      await inTransaction(database.connection, () => Channel('news').send({ n: 2 }))
      await sleep(700)
    })

    const [first, second] = await short.backend().receive(['news'], { max: 2, waitMs: 5_000 })
    expect([first?.content, second?.content]).toEqual([{ n: 1 }, { n: 2 }])
  })

  it('runs nothing after a commit that PostgreSQL has made a rollback', async () => {
    const steps: unknown[] = []
    const ended = inTransaction(database.connection, async () => {
      await insert(1)
      await insert(1).catch(() => steps.push('caught'))
      await Channel('jobs', { backend: 'memory' }).send({ n: 1 })
      await afterCommit(() => steps.push('after'))
    }).catch((error) => steps.push(error.code))
    await ended
    const without = inTransaction(database.connection, () =>
      insert(1).then(() => insert(1).catch(() => {})),
    )
    const outcome = await without.then(
      () => 'committed',
      (error) => error.code,
    )

    const saved = await database.query('SELECT id FROM note')
    const sent = await takeAll(site.backend('memory'), 'jobs')
    if (name === 'PostgreSQL') {
      expect(steps).toEqual(['caught', '25P02'])
      expect([saved, sent, outcome]).toEqual([[], [], 'ERR_ROLLED_BACK'])
    } else {
      expect(steps).toEqual(['caught', 'after'])
      expect(sent).toEqual([{ n: 1 }])
    }
  })

  it('is not what its work left running', async () => {
    let go = (): void => {}
    let sent: Promise<void> | undefined
    await inTransaction(database.connection, () => {
      sent = new Promise<void>((resolve) => {
        go = resolve
      }).then(() => Channel('news').send({ n: 1 }))
    })
    go()
    await sent

    expect(await takeAll(backend, 'news')).toEqual([{ n: 1 }])
  })

  it('says that joinTransaction cannot wait for a commit', async () => {
    const sent = joinTransaction(database.connection, () =>
      Channel('jobs', { backend: 'memory' }).send({}),
    )
    const later = joinTransaction(database.connection, () => afterCommit(() => {}))

    await expect(sent).rejects.toMatchObject({ code: 'ERR_NOT_SUPPORTED' })
    await expect(later).rejects.toMatchObject({ code: 'ERR_NOT_SUPPORTED' })
  })

  it('refuses a handle of no known kind, and takes a function instead', async () => {
    const handle = { name: 'mine' }
    const runIt = async (text: string) => {
      if ('exec' in database.connection) database.connection.exec(text)
      else await database.connection.query(text)
    }

    await expect(joinTransaction(handle, () => Channel('news').send({}))).rejects.toMatchObject({
      code: 'ERR_INVALID_ARGUMENT',
    })
    await joinTransaction(handle, () => Channel('news').send({ n: 1 }), { run: runIt })

    expect((await receive('news')).map(({ content }) => content)).toEqual([{ n: 1 }])
  })
})

describe.each(['PostgreSQL', 'MariaDB'])('inTransaction on %s', (name) => {
  it('refuses a pool, which runs each statement on another connection', async () => {
    await using place = await (sqlPlaces[name] as () => Promise<SqlPlace>)()
    const url = await place.newUrl()
    const site = await setup({ channelBackends: { default: { backend: url } } })
    const pool =
      name === 'PostgreSQL'
        ? new pg.Pool({ connectionString: url })
        : mysql.createPool({ uri: url.replace(/^mariadb:/, 'mysql:') })
    const source = new DataSource({ type: 'postgres', url })
    const sequelize = new Sequelize({ dialect: 'postgres', logging: false })

    for (const handle of [pool, source, sequelize]) {
      const sent = inTransaction(handle as never, () => Channel('news').send({}))
      await expect(sent).rejects.toMatchObject({
        code: 'ERR_INVALID_ARGUMENT',
        message: expect.stringContaining('was given a pool'),
      })
    }
    await pool.end()
    await site.close()
  })
})
