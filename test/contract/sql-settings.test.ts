import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Channel } from 'channelkit'
import type { ChannelBackend } from 'channelkit/backend'
import { MysqlBackend } from 'channelkit/mysql'
import { PostgresBackend } from 'channelkit/postgres'
import pg from 'pg'
import { afterAll, describe, expect, it } from 'vitest'
import { postgresNames } from '../../src/backends/sql/postgres-signs.ts'
import { runMysql } from '../support/mysql-store.ts'
import { runPostgres } from '../support/postgres-store.ts'
import { startProxy } from '../support/proxy.ts'
import { type StartedService, startMariadb, startPostgres } from '../support/service-process.ts'

/** Runs `work` while nobody can write, so that all that it begins waits for its turn. */
async function withoutWriters<T>(url: string, work: () => T): Promise<Awaited<T>> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    await client.query(`SELECT pg_advisory_lock(${postgresNames('public', 'channelkit_').lock})`)
    const working = work()
    await sleep(300)
    await client.query('SELECT pg_advisory_unlock_all()')
    return await working
  } finally {
    await client.end()
  }
}

const one = [{ channel: 'x', content: {} }]

/** Opens all connections of a backend. */
async function sendMany(backend: ChannelBackend): Promise<void> {
  const looks = Array.from({ length: 6 }, () => backend.channels())
  await Promise.all([backend.send(one), ...looks])
}

describe('PostgresBackend', async () => {
  const server = await startPostgres()
  afterAll(() => server[Symbol.asyncDispose]())
  const query = async (url: string, text: string) => {
    const client = new pg.Client({ connectionString: url })
    await client.connect()
    await client.query(text)
    await client.end()
  }
  const urlOf = (database: string) =>
    `postgres://postgres@localhost/${database}?host=${encodeURIComponent(server.folder)}`

  it('counts what others stored while it waited, whatever isolation the database has', async () => {
    await query(urlOf('postgres'), 'CREATE DATABASE site')
    const url = urlOf('site')
    await query(url, "ALTER DATABASE site SET default_transaction_isolation = 'repeatable read'")
    const backends = [1, 2, 3].map(() => new PostgresBackend({ url, capacity: 1 }))
    for (const backend of backends) await backend.open()

    const failures = await withoutWriters(url, () =>
      Promise.all(backends.map((each) => each.send([{ channel: 'x', content: {} }]))),
    )

    expect(failures.flat()).toHaveLength(2)
    expect(await backends[0]?.channels()).toMatchObject([{ channel: 'x', waiting: 1 }])
    for (const backend of backends) await backend.close()
  })

  it('waits for a pool of the site and for its answers no longer than busyMs', async () => {
    const proxy = await startProxy(join(server.folder, '.s.PGSQL.5432'))
    const connectionString = `postgres://postgres@127.0.0.1:${proxy.port}/postgres`
    const pool = new pg.Pool({ connectionString, max: 3 })
    pool.on('error', () => {})
    const options = { busyMs: 500, listenUrl: false } as const
    const backend = new PostgresBackend({ pool, tablePrefix: 'lent_', ...options })
    await backend.open()

    proxy.silence()
    const unanswered = { code: 'ERR_BACKEND_UNAVAILABLE' }
    await expect(backend.channels()).rejects.toMatchObject(unanswered)
    const taken = await Promise.all([1, 2, 3].map(() => pool.connect()))
    await expect(backend.channels()).rejects.toMatchObject(unanswered)
    for (const connection of taken) connection.release()
    expect(await backend.channels()).toEqual([])

    await backend.close()
    await pool.end()
    await proxy.close()
  })

  it.each([
    [2, {}],
    [1, { listenUrl: false }],
    [1, { pgbouncer: true }],
  ] as const)('refuses a pool of %i in which calls would wait for each other', (max, options) => {
    const pool = new pg.Pool({ max })

    expect(() => new PostgresBackend({ pool, ...options })).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_CONFIG' }),
    )
    expect(
      () => new PostgresBackend({ pool: new pg.Pool({ max: max + 1 }), ...options }),
    ).not.toThrow()
  })

  it('takes turns with who writes the same prefix in other letters', async () => {
    const url = urlOf('postgres')
    const backend = new PostgresBackend({ url, tablePrefix: 'CHANNELKIT_' })
    await backend.open()
    let isSent = false

    await withoutWriters(url, async () => {
      void backend.send([{ channel: 'x', content: {} }]).then(() => {
        isSent = true
      })
      await sleep(200)
      expect(isSent).toBe(false)
    })

    expect(await backend.receive(['x'], { max: 1, waitMs: 5_000 })).toHaveLength(1)
    await backend.close()
  })
})

describe('a fail-over behind one address', () => {
  it('leaves the PostgreSQL that takes no writes any more', async () => {
    await using first = await startPostgres()
    await using second = await startPostgres()
    const socket = '.s.PGSQL.5432'
    const proxy = await startProxy(join(first.folder, socket))
    const url = `postgres://postgres@127.0.0.1:${proxy.port}/postgres`
    const backend = new PostgresBackend({ url, listenUrl: false })
    await sendMany(backend)

    await runPostgres(first.folder, 'ALTER SYSTEM SET default_transaction_read_only = on')
    await runPostgres(first.folder, 'SELECT pg_reload_conf()')
    await sleep(500)
    await expect(backend.send(one)).rejects.toThrow('takes no writes, as a standby does not')
    proxy.lead(join(second.folder, socket))

    await expect.poll(() => backend.send(one).catch(String), { timeout: 5_000 }).toEqual([])
    expect(await backend.channels()).toMatchObject([{ waiting: 1 }])
    await backend.close()
    await proxy.close()
  })

  it('leaves the MariaDB that takes no writes any more', async () => {
    await using first = await startMariadb()
    await using second = await startMariadb()
    for (const { folder } of [first, second]) {
      await runMysql(folder, "CREATE USER 'ada'@'localhost'")
      await runMysql(folder, "GRANT ALL ON site.* TO 'ada'@'localhost'")
    }
    const proxy = await startProxy(join(first.folder, 'mariadb.sock'))
    const backend = new MysqlBackend({ url: `mysql://ada@127.0.0.1:${proxy.port}/site` })
    await sendMany(backend)

    await runMysql(first.folder, 'SET GLOBAL read_only = 1')
    await expect(backend.send(one)).rejects.toThrow('takes no writes, as a replica does not')
    proxy.lead(join(second.folder, 'mariadb.sock'))

    await expect.poll(() => backend.send(one).catch(String), { timeout: 5_000 }).toEqual([])
    expect(await backend.channels()).toMatchObject([{ waiting: 1 }])
    await backend.close()
    await proxy.close()
  })
})

describe('MysqlBackend', () => {
  const urlOf = ({ folder }: StartedService, user: string) =>
    `mysql://${user}@localhost/site?socketPath=${encodeURIComponent(join(folder, 'mariadb.sock'))}`

  it('has the right time in the hour in which clocks are set back', async () => {
    const zone = process.env.TZ
    process.env.TZ = 'Europe/Berlin'
    await using server = await startMariadb()
    if (zone === undefined) delete process.env.TZ
    else process.env.TZ = zone
    // Half past two in summer time, half an hour before the clocks are set back to two.
    const seconds = Date.UTC(2026, 9, 25, 0, 30) / 1_000
    await runMysql(server.folder, "CREATE USER 'ada'@'localhost'")
    await runMysql(server.folder, "GRANT ALL ON site.* TO 'ada'@'localhost'")
    await runMysql(server.folder, `SET GLOBAL init_connect = 'SET timestamp = ${seconds}'`)
    const backend = new MysqlBackend({ url: urlOf(server, 'ada') })

    // The first call of all: the delay counts by the server's clock, not by that of this machine.
    await Channel('x', { backend }).send({}, { delayMs: 3_600_000 })

    const now = seconds * 1_000
    expect(Math.abs(backend.limits.clock.now() - now)).toBeLessThan(60_000)
    const later = await runMysql(server.folder, 'SELECT visible_at FROM channelkit_later')
    const [{ visible_at: visibleAt }] = later as [{ readonly visible_at: number }]
    expect(Math.abs(visibleAt - now - 3_600_000)).toBeLessThan(60_000)
    await backend.close()
  })

  it('says what to raise when the server keeps no more statements prepared', async () => {
    await using server = await startMariadb()
    await runMysql(server.folder, 'SET GLOBAL max_prepared_stmt_count = 0')
    const backend = new MysqlBackend({ url: urlOf(server, 'root') })

    await expect(backend.send(one)).rejects.toThrow('raise its max_prepared_stmt_count')
    await backend.close()
  })

  it.each(['bigNumberStrings=true&supportBigNumbers=true', 'rowsAsArray=true'])(
    'reads rows in its own way, whatever the rest of the site has in the URL: %s',
    async (parameters) => {
      await using server = await startMariadb()
      const backend = new MysqlBackend({ url: `${urlOf(server, 'root')}&${parameters}` })
      await backend.send([{ channel: 'x', content: { text: 'ä日😀' } }])

      const taken = await backend.receive(['x'], { max: 1, waitMs: 5_000 })
      await backend.handBack(taken)

      const again = await backend.receive(['x'], { max: 1, waitMs: 5_000 })
      expect(again.map(({ content }) => content)).toEqual([{ text: 'ä日😀' }])
      await backend.close()
    },
  )
})
