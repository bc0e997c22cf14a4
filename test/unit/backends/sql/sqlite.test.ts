import { existsSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { ChannelBackend } from 'channelkit/backend'
import { SqliteBackend, type SqliteBackendOptions } from 'channelkit/sqlite'
import { FakeClock } from 'channelkit/testing'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { ChannelkitError } from '../../../../src/errors.ts'
import { noting, openDatabase } from '../../../support/sqlite-database.ts'

let directory: string
let file: string
let opened: ChannelBackend[]

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'channelkit-sqlite-'))
  file = join(directory, 'site.db')
  opened = []
})

afterEach(async () => {
  await Promise.allSettled(opened.map((backend) => backend.close()))
  await rm(directory, { recursive: true })
})

function open(options: Partial<SqliteBackendOptions> = {}): SqliteBackend {
  const backend = new SqliteBackend({ file, busyMs: 200, ...options })
  opened.push(backend)
  return backend
}

function numbered(channel: string, ...numbers: readonly number[]) {
  return numbers.map((number) => ({ channel, content: { number } }))
}

async function take(backend: ChannelBackend, channel: string, max = 100) {
  return backend.receive([channel], { max, waitMs: 0 })
}

async function takeNumbers(backend: ChannelBackend, channel: string) {
  return (await take(backend, channel)).map(({ content }) => content.number)
}

async function faultOf(call: Promise<unknown>): Promise<ChannelkitError> {
  return call.then(
    () => {
      throw new Error('the call was expected to reject')
    },
    (error: ChannelkitError) => error,
  )
}

describe('SqliteBackend', () => {
  describe('its options', () => {
    it.each([
      ['file', ''],
      ['file', ':memory:'],
      ['file', undefined],
      ['busyMs', 0],
      ['busyMs', 1.5],
      ['tablePrefix', ''],
      ['tablePrefix', '1st_'],
      ['tablePrefix', 'a"; DROP TABLE x; --'],
      ['tablePrefix', 'a'.repeat(41)],
      ['capacity', 0],
    ])('rejects %s %j with ERR_INVALID_CONFIG', (name, value) => {
      const make = () => new SqliteBackend({ file, [name]: value } as SqliteBackendOptions)

      expect(make).toThrow(expect.objectContaining({ code: 'ERR_INVALID_CONFIG' }))
    })

    it('names the packages to install when the driver is missing', async () => {
      const backend = open({ driver: 'better-sqlite3' })

      const error = await faultOf(backend.open())

      expect(error.code).toBe('ERR_INVALID_CONFIG')
      expect(error.message).toMatch(/npm install libsql.*better-sqlite3.*node:sqlite/)
    })

    it('uses a database that was opened already, and leaves it open', async () => {
      const database = openDatabase(file)
      const backend = open({ driver: database })
      await backend.send(numbered('news', 1))

      await backend.close()

      const [row] = database.prepare('SELECT count(*) AS waiting FROM channelkit_message').all()
      expect(row).toMatchObject({ waiting: 1 })
      database.close()
    })

    it('keeps sites with different prefixes in one file apart', async () => {
      const first = open({ tablePrefix: 'first_' })
      const second = open({ tablePrefix: 'second_' })
      await first.send(numbered('news', 1))
      await second.send(numbered('news', 2))

      await first.flush()

      expect(await takeNumbers(first, 'news')).toEqual([])
      expect(await takeNumbers(second, 'news')).toEqual([2])
    })
  })

  describe('its tables', () => {
    it('are refused with ERR_INVALID_CONFIG when a newer version made them', async () => {
      await open().open()
      const database = openDatabase(file)
      database.exec("UPDATE channelkit_meta SET value = '5' WHERE name = 'schema-version'")
      database.close()

      const error = await faultOf(open().send(numbered('news', 1)))

      expect(error.code).toBe('ERR_INVALID_CONFIG')
      expect(error.message).toMatch(/schema version 5, newer than 4/)
    })

    it('are brought from version 1 to this one with what lies in them', async () => {
      const first = open()
      await first.send(numbered('news', 1, 2))
      await first.close()
      const database = openDatabase(file)
      database.exec('DROP TABLE channelkit_line')
      database.exec('DROP INDEX channelkit_message_by_line')
      database.exec("UPDATE channelkit_meta SET value = '1' WHERE name = 'schema-version'")
      database.close()

      const second = open()
      await second.send([{ channel: 'news', content: { number: 3, reply_channel: 'ada' } }])
      const lines = { channels: ['news'], leaseMs: 1_000 }
      const taken = await second.receive(['news'], { max: 9, waitMs: 0, lines })

      expect(taken.map(({ content }) => content.number)).toEqual([1, 2, 3])
      expect(taken[2]?.turn?.line).toBe('ada')
    })

    it('are made once by backends that start at the same time', async () => {
      const backends = Array.from({ length: 8 }, () => open({ busyMs: 5_000 }))

      await Promise.all(backends.map((backend) => backend.send(numbered('news', 1))))

      expect(await takeNumbers(open(), 'news')).toEqual(Array(8).fill(1))
    })

    it('give no id twice, so that a message handed back is not put before a younger one', async () => {
      const backend = open()
      await backend.send(numbered('news', 1))
      const [first] = await take(backend, 'news')
      await backend.send(numbered('news', 2))
      const [second] = await take(backend, 'news')

      await backend.handBack([second, first].filter((message) => message !== undefined))

      expect(second?.id).toBeGreaterThan(first?.id as number)
      expect(await takeNumbers(backend, 'news')).toEqual([1, 2])
    })

    it('hold group names with any character', async () => {
      const backend = open()
      const names = ['a\u0000b', 'a', 'quote"\\', 'line\nbreak', "it's", '%_', 'ä😀']
      await backend.groupAdd(names.map((group) => ({ group, channel: 'member' })))

      const groups = (await backend.groups()).map(({ group }) => group)

      expect(groups.sort()).toEqual(names.sort())
      expect(await backend.groupChannels('a\u0000b')).toEqual(['member'])
    })

    it('lose a row whose content another program wrote, and count it', async () => {
      const backend = open()
      await backend.send(numbered('news', 1, 2))
      const database = openDatabase(file)
      database.exec("UPDATE channelkit_message SET content = 'junk' WHERE id = 1")
      database.close()

      expect(await takeNumbers(backend, 'news')).toEqual([2])
      expect(backend.counters.get('dropped.invalid')).toBe(1)
    })
  })

  describe('damaged rows', () => {
    /** Changes the tables as another program might. */
    function damage(...statements: readonly string[]): void {
      const database = openDatabase(file)
      for (const text of statements) database.exec(text)
      database.close()
    }

    it.each(["''", '5', 'NULL', "x'03'", "x''", "'1{'", "'1[]'"])(
      'with content %s cost no other message of the batch',
      async (content) => {
        const backend = open()
        await backend.send(numbered('news', 1, 2, 3))
        damage(`UPDATE channelkit_message SET content = ${content} WHERE id = 2`)

        expect(await takeNumbers(backend, 'news')).toEqual([1, 3])
        expect(backend.counters.get('dropped.invalid')).toBe(1)
      },
    )

    it.each([
      "content = 'junk' WHERE id = 2",
      'content = NULL WHERE id = 2',
      'target = NULL WHERE id = 2',
      'kind = 99 WHERE id = 2',
      "kind = 2, target = '\"' WHERE id = 2",
      "kind = 3, content = 'null' WHERE id = 2",
      "kind = 3, content = '[1]' WHERE id = 2",
      'kind = 3, content = \'["chat"]\' WHERE id = 2',
      "kind = 4, content = '{' WHERE id = 2",
    ])('of an inbox with %s cost no other entry of the batch', async (change) => {
      const backend = open()
      const inbox = await backend.openInbox<string>()
      await backend.send(numbered(inbox.newChannel('ada'), 1, 2, 3))
      damage(`UPDATE channelkit_message SET ${change}`)

      const deliveries = await inbox.receive({ max: 10, waitMs: 0 })

      expect(deliveries.map(({ content }) => content.number)).toEqual([1, 3])
      expect(backend.counters.get('dropped.invalid')).toBe(1)
    })

    it('of a line let the line go on', async () => {
      const backend = open()
      const reply = 'reply.abc!def'
      const lines = { channels: ['news'], leaseMs: 60_000 }
      const content = (number: number) => ({ reply_channel: reply, number })
      await backend.send([1, 2, 3].map((number) => ({ channel: 'news', content: content(number) })))
      const [first] = await backend.receive(['news'], { max: 3, waitMs: 0, lines })
      damage("UPDATE channelkit_message SET content = 'junk' WHERE id = 2")
      expect(first?.content.number).toBe(1)

      const turns = first?.turn ? [first.turn] : []
      const { messages } = await backend.advanceLines(turns, {
        channels: ['news'],
        leaseMs: 60_000,
      })

      expect(messages).toEqual([])
      const [third] = await backend.receive(['news'], { max: 3, waitMs: 1_000, lines })
      expect(third?.content.number).toBe(3)
    })

    it('of announcements and groups are left out of the lists', async () => {
      const backend = open()
      const about = { kind: 'worker', host: 'a', pid: 1, startedAt: 1, channels: [] } as const
      for (const id of ['a', 'b', 'c', 'd', 'e']) await backend.announce({ ...about, id }, 60_000)
      await backend.groupAdd([
        { group: 'chat', channel: 'x' },
        { group: 'bad', channel: 'x' },
      ])
      damage(
        "UPDATE channelkit_process SET info = 'junk' WHERE id = 'b'",
        "UPDATE channelkit_process SET info = 'null' WHERE id = 'c'",
        'UPDATE channelkit_process SET info = \'{"id":"d","kind":"worker"}\' WHERE id = \'d\'',
        "UPDATE channelkit_membership SET group_name = '\"' WHERE group_name = 'bad'",
      )

      expect((await backend.processes()).map(({ id }) => id).sort()).toEqual(['a', 'e'])
      expect(await backend.groups()).toEqual([{ group: 'chat', members: 1 }])
    })
  })

  describe('its transactions', () => {
    it('join the calls of one turn, in their order', async () => {
      const notes: string[] = []
      const backend = open({ driver: noting(openDatabase(file), notes) })
      const inbox = await backend.openInbox<string>()
      const channel = inbox.newChannel('ada')
      notes.length = 0

      await Promise.all([
        backend.send(numbered('news', 1)),
        backend.groupAdd([{ group: 'chat', channel }]),
        backend.groupSend([{ group: 'chat', content: { number: 2 } }]),
        backend.send(numbered('news', 3)),
        backend.groupDiscard([{ group: 'chat', channel }]),
        backend.groupSend([{ group: 'chat', content: { number: 4 } }]),
      ])

      expect(notes.filter((text) => text.startsWith('BEGIN'))).toHaveLength(1)
      expect(await takeNumbers(backend, 'news')).toEqual([1, 3])
      const deliveries = await inbox.receive({ max: 10, waitMs: 0 })
      expect(deliveries.map(({ content }) => content.number)).toEqual([2])
    })

    it('are not begun while nothing waits', async () => {
      const notes: string[] = []
      const backend = open({ driver: noting(openDatabase(file), notes) })
      await backend.open()
      notes.length = 0

      await backend.receive(['news', 'other'], { max: 10, waitMs: 0 })
      await backend.cleanUp()

      expect(notes.filter((text) => text.startsWith('BEGIN'))).toEqual([])
    })

    it('take a whole batch at once', async () => {
      const notes: string[] = []
      const backend = open({ driver: noting(openDatabase(file), notes) })
      await backend.send(numbered('news', ...Array(100).keys()))
      notes.length = 0

      expect(await take(backend, 'news')).toHaveLength(100)
      expect(notes.filter((text) => text.startsWith('DELETE'))).toHaveLength(1)
    })

    it('store the others of a batch when a message has a time that is none', async () => {
      const backend = open()

      const failures = await backend.send([
        { channel: 'news', content: { number: 1 }, expiresAt: Number.NaN },
        ...numbered('news', 2),
      ])

      expect(failures.map(({ index, error }) => [index, error.code])).toEqual([
        [0, 'ERR_INVALID_ARGUMENT'],
      ])
      expect(await takeNumbers(backend, 'news')).toEqual([2])
    })
  })

  describe('when the database is away', () => {
    it('rejects with ERR_BACKEND_UNAVAILABLE when it stays locked, then goes on', async () => {
      const backend = open()
      await backend.open()
      const database = openDatabase(file)
      database.exec('BEGIN IMMEDIATE')

      const error = await faultOf(backend.send(numbered('news', 1)))
      database.exec('ROLLBACK')
      await backend.send(numbered('news', 2))

      expect(error.code).toBe('ERR_BACKEND_UNAVAILABLE')
      expect(error.message).toMatch(/locked by another process for 200 ms/)
      expect(error.cause).toBeInstanceOf(Error)
      expect(await takeNumbers(backend, 'news')).toEqual([2])
      database.close()
    })

    it('rejects all calls that wait for the lock when their time is over, however many', async () => {
      const backend = open({ capacity: 100_000 })
      await backend.open()
      const database = openDatabase(file)
      database.exec('BEGIN IMMEDIATE')
      const startedAt = performance.now()
      const settledAfter = (call: Promise<unknown>) =>
        call.then(
          () => Number.POSITIVE_INFINITY,
          () => performance.now() - startedAt,
        )
      const full = numbered('news', ...Array(2_000).keys())
      const calls = Array.from({ length: 8 }, () => settledAfter(backend.send(full)))

      await Promise.race(calls)
      const later = settledAfter(backend.send(numbered('news', 1)))

      expect(Math.max(...(await Promise.all(calls)))).toBeLessThan(450)
      expect(await later).toBeGreaterThan(390)
      database.exec('ROLLBACK')
      database.close()
    })

    it('settles with ERR_BACKEND_CLOSED a receive that waits for the lock', async () => {
      const backend = open({ busyMs: 60_000 })
      await backend.send(numbered('news', 1))
      const database = openDatabase(file)
      database.exec('BEGIN IMMEDIATE')
      const receiving = faultOf(take(backend, 'news'))
      await new Promise((resolve) => setImmediate(resolve))

      const closing = backend.close()

      expect((await receiving).code).toBe('ERR_BACKEND_CLOSED')
      database.exec('ROLLBACK')
      await closing
      expect(await takeNumbers(open(), 'news')).toEqual([1])
      database.close()
    })

    it('sees what is sent after another process made the tables it was about to make', async () => {
      const model = open({ file: join(directory, 'model.db') })
      await model.open()
      const modelDatabase = openDatabase(join(directory, 'model.db'))
      const schema = modelDatabase
        .prepare('SELECT sql FROM sqlite_master WHERE sql IS NOT NULL')
        .all() as { sql: string }[]
      const meta = modelDatabase.prepare('SELECT name, value FROM channelkit_meta').all() as {
        name: string
        value: string
      }[]
      const database = openDatabase(file)
      database.prepare('PRAGMA journal_mode = WAL').all()
      database.exec('BEGIN IMMEDIATE')
      const backend = open({ busyMs: 60_000 })
      const opening = backend.open()
      await sleep(50)
      for (const { sql } of schema) {
        if (!sql.includes('sqlite_')) database.exec(sql)
      }
      for (const { name, value } of meta) {
        database.prepare('INSERT INTO channelkit_meta VALUES (?, ?)').run(name, value)
      }
      database.exec('COMMIT')
      await opening

      const before = await backend.channels()
      await open().send(numbered('news', 1))

      expect(before).toEqual([])
      expect(await takeNumbers(backend, 'news')).toEqual([1])
      database.close()
      modelDatabase.close()
    })

    it('sees what is sent after a call that gave up on the lock', async () => {
      const backend = open()
      await backend.open()
      const database = openDatabase(file)
      database.exec('BEGIN IMMEDIATE')
      const error = await faultOf(backend.send(numbered('news', 1)))
      database.exec('ROLLBACK')

      const before = await backend.channels()
      await open().send(numbered('news', 2))

      expect(error.code).toBe('ERR_BACKEND_UNAVAILABLE')
      expect(before).toEqual([])
      expect(await takeNumbers(backend, 'news')).toEqual([2])
      database.close()
    })

    it('rejects while the disk is full, and goes on when it has room', async () => {
      const database = openDatabase(file)
      const backend = open({ driver: database, capacity: 10_000 })
      await backend.send(numbered('news', 1))
      const [pages] = database.prepare('PRAGMA page_count').all() as { page_count: number }[]
      database.exec(`PRAGMA max_page_count = ${pages?.page_count}`)
      const text = 'x'.repeat(100_000)

      const error = await faultOf(backend.send([{ channel: 'news', content: { text } }]))
      database.exec('PRAGMA max_page_count = 1000000')
      await backend.send(numbered('news', 2))

      expect(error.code).toBe('ERR_BACKEND_UNAVAILABLE')
      expect(error.message).toMatch(/disk is full/)
      expect(error.cause).toBeInstanceOf(Error)
      expect(await takeNumbers(backend, 'news')).toEqual([1, 2])
      await backend.close()
      database.close()
    })

    it('rejects when its directory is missing', async () => {
      const backend = open({ file: join(directory, 'none', 'site.db') })

      const error = await faultOf(backend.send(numbered('news', 1)))

      expect(error.code).toBe('ERR_BACKEND_UNAVAILABLE')
      expect(error.cause).toBeInstanceOf(Error)
    })

    it('rejects when the file is no database, and goes on when it is gone', async () => {
      await writeFile(file, 'not a database, whatever its name says '.repeat(100))
      const backend = open()

      const error = await faultOf(backend.send(numbered('news', 1)))
      await rm(file)
      await backend.send(numbered('news', 2))

      expect(error.code).toBe('ERR_BACKEND_UNAVAILABLE')
      expect(error.message).toMatch(/is no SQLite database/)
      expect(error.cause).toBeInstanceOf(Error)
      expect(await takeNumbers(backend, 'news')).toEqual([2])
    })

    it('goes on in a new file, with its inboxes, when the file was deleted', async () => {
      const backend = open()
      const inbox = await backend.openInbox<string>()
      const reply = inbox.newChannel('ada')
      for (const suffix of ['', '-wal', '-shm', '-wake']) await rm(file + suffix, { force: true })

      await expect
        .poll(async () => {
          await backend.send(numbered(reply, 1))
          return existsSync(file)
        })
        .toBe(true)
      const other = open()
      await other.send(numbered(reply, 2))

      const deliveries = await inbox.receive({ max: 100, waitMs: 1_000 })
      expect(deliveries.at(-1)?.content).toEqual({ number: 2 })
    })
  })

  describe('an inbox that keeps its memberships', () => {
    it('records again what is lost, and nothing of which it has yet to read that it ended', async () => {
      const server = open()
      const inbox = await server.openInbox<string>({ renewal: 'auto' })
      const [ada, bob, cy] = ['ada', 'bob', 'cy'].map((name) => inbox.newChannel(name))
      const inChat = (...channels: readonly (string | undefined)[]) =>
        channels.map((channel = '') => ({ group: 'chat', channel }))
      await server.groupAdd(inChat(ada, bob, cy))
      await inbox.receive({ max: 10, waitMs: 0 })
      await server.groupDiscard(inChat(ada, cy))
      await server.groupAdd(inChat(cy))
      const database = openDatabase(file)
      database.exec(`DELETE FROM channelkit_membership WHERE channel = '${bob}'`)
      database.close()

      const [, reading] = await Promise.all([
        inbox.renew(),
        inbox.receive({ max: 1, waitMs: 1_000 }),
      ])

      expect(reading).toEqual([])
      expect([...(await server.groupChannels('chat'))].sort()).toEqual([bob, cy].sort())
    })

    it.each(['finds the file deleted', 'finds another file in its place'])(
      'hears its groups within 2 s when it %s',
      async (how) => {
        const server = open()
        const inbox = await server.openInbox<string>({ renewal: 'auto' })
        const channel = inbox.newChannel('ada')
        await server.groupAdd([{ group: 'chat', channel }])
        await inbox.receive({ max: 10, waitMs: 0 })
        const receiving = inbox.receive({ max: 10, waitMs: 2_000 })
        for (const suffix of ['', '-wal', '-shm', '-wake']) await rm(file + suffix, { force: true })
        const other = open()
        if (how.includes('another')) await other.send(numbered('news', 1))

        const sending = setInterval(() => {
          void other.groupSend([{ group: 'chat', content: { number: 1 } }])
        }, 50)
        const deliveries = await receiving.finally(() => clearInterval(sending))

        expect(deliveries.length).toBeGreaterThan(0)
      },
    )

    it('is found again by replies after others have taken its process for dead', async () => {
      const clock = new FakeClock()
      const server = open({ clock: new FakeClock(clock.now()) })
      const other = open({ clock })
      const inbox = await server.openInbox<string>({ renewal: 'auto' })
      const channel = inbox.newChannel('ada')
      await other.open()
      await clock.advance(181_000)
      await other.cleanUp()

      await inbox.renew()
      await other.send([{ channel, content: { number: 1 }, expiresAt: clock.now() + 60_000 }])

      expect(await inbox.receive({ max: 10, waitMs: 0 })).toHaveLength(1)
    })
  })

  describe('the inbox of a crashed process', () => {
    it('goes with its lease, and replies to it count as gone from then on', async () => {
      const clock = new FakeClock()
      const crashed = open({ clock: new FakeClock(clock.now()) })
      const other = open({ clock })
      const inbox = await crashed.openInbox<string>()
      const reply = inbox.newChannel('ada')
      await other.groupAdd([{ group: 'chat', channel: reply }])
      await other.send(numbered(reply, 1))
      await clock.advance(181_000)

      await other.cleanUp()
      const failures = await other.send(numbered(reply, 2))

      expect(failures).toEqual([])
      expect(other.counters.get('dropped.gone')).toBe(1)
      const database = openDatabase(file)
      expect(database.prepare('SELECT 1 FROM channelkit_message').all()).toEqual([])
      expect(database.prepare('SELECT 1 FROM channelkit_membership').all()).toEqual([])
      database.close()
    })

    it('stays while its process lives, however long nothing is sent', async () => {
      const clock = new FakeClock()
      const server = open({ clock })
      const other = open({ clock })
      const inbox = await server.openInbox<string>()
      const reply = inbox.newChannel('ada')
      await other.open()

      for (let minutes = 0; minutes < 10; minutes++) {
        await clock.advance(60_000)
        await server.cleanUp()
        await other.cleanUp()
      }
      await other.send(numbered(reply, 1))

      expect(await inbox.receive({ max: 10, waitMs: 0 })).toHaveLength(1)
    })
  })
})
