import { randomBytes } from 'node:crypto'
import { Channel, Group, inTransaction, setup } from 'channelkit'
import { PostgresBackend, type PostgresBackendOptions } from 'channelkit/postgres'
import pg from 'pg'
import { afterAll, afterEach, describe, expect, it } from 'vitest'
import { startPgbouncer, startPostgres } from '../support/service-process.ts'
import { postgresPlace } from '../support/sql-places.ts'

const server = await startPostgres()
const place = postgresPlace(server)
const closing: (() => Promise<unknown>)[] = []

afterAll(() => place[Symbol.asyncDispose]())
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close()
})

async function connect(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  closing.push(() => client.end())
  return client
}

function open(options: PostgresBackendOptions): PostgresBackend {
  const backend = new PostgresBackend(options)
  closing.push(() => backend.close())
  return backend
}

/** A backend with its tables, and a connection of somebody who knows nothing of it. */
async function start(options: Partial<PostgresBackendOptions> = {}) {
  const url = await place.newUrl()
  const backend = open({ url, ...options })
  await backend.open()
  return { url, backend, client: await connect(url) }
}

const wait = { max: 100, waitMs: 5_000 }

describe('the functions in PostgreSQL', () => {
  it('send by a trigger, with the rows of the transaction alone', async () => {
    const { backend, client } = await start()
    await client.query(`
      CREATE TABLE account (id INTEGER PRIMARY KEY, name TEXT);
      CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        PERFORM channelkit_send('accounts', jsonb_build_object('id', NEW.id, 'name', NEW.name));
        RETURN NULL;
      END $$;
      CREATE TRIGGER tell AFTER INSERT ON account FOR EACH ROW EXECUTE FUNCTION tell();`)
    const receiving = backend.receive(['accounts'], wait)

    await client.query(`BEGIN; INSERT INTO account VALUES (1, 'never'); ROLLBACK`)
    await client.query(`INSERT INTO account VALUES (2, 'Ada "ä" \\ ?'), (3, NULL)`)

    expect((await receiving).map(({ content }) => content)).toEqual([
      { id: 2, name: 'Ada "ä" \\ ?' },
      { id: 3, name: null },
    ])
  })

  it('wake who waits, though no other process of the site writes', async () => {
    const { backend, client } = await start()
    const latenciesMs: number[] = []
    for (let n = 0; n < 20; n++) {
      const receiving = backend.receive(['news'], wait)
      const sentAt = performance.now()
      await client.query(`SELECT channelkit_send('news', '{"n": ${n}}')`)
      expect((await receiving)[0]?.content).toEqual({ n })
      if (n > 0) latenciesMs.push(performance.now() - sentAt)
    }

    latenciesMs.sort((a, b) => a - b)
    expect(latenciesMs[10]).toBeLessThan(100)
  })

  it('reach the members of a group, whatever its name', async () => {
    const { backend, client } = await start()
    const inbox = await backend.openInbox<string>()
    const names = ['kitchen', `Tür "1"\\\n\u0001\u007f é`]
    const memberships = names.map((group) => ({ group, channel: inbox.newChannel(group) }))
    await backend.groupAdd(memberships)
    await inbox.receive({ max: 100, waitMs: 100 })

    for (const name of names) {
      await client.query(`SELECT channelkit_group_send($1, '{"content": "hi"}')`, [name])
    }

    const groups: unknown[] = []
    while (groups.length < 2) {
      const deliveries = await inbox.receive(wait)
      if (deliveries.length === 0) break
      groups.push(...deliveries.map(({ group }) => group))
    }
    expect(groups).toEqual(names)
  })

  it.each([
    [`channelkit_send('a b', '{}')`, 'channel name'],
    [`channelkit_send(NULL, '{}')`, 'channel name'],
    [`channelkit_send('${'x'.repeat(201)}', '{}')`, 'channel name'],
    [`channelkit_send('news', '[]')`, 'no JSON object'],
    [`channelkit_send('news', NULL)`, 'no JSON object'],
    [`channelkit_send('news', jsonb_build_object('a', repeat('x', 1048577)))`, 'more than 1048576'],
    [`channelkit_group_send('', '{}')`, 'group name'],
    [`channelkit_group_send('all', '7')`, 'no JSON object'],
  ])('refuse %s', async (call, reason) => {
    const { client } = await start()

    await expect(client.query(`SELECT ${call}`)).rejects.toThrow(reason)
  })

  it('count the expiry from the commit', async () => {
    const { backend, client } = await start({ expiryMs: 1_000 })
    await client.query(`BEGIN; SELECT channelkit_send('news', '{"n": 1}'); SELECT pg_sleep(1.5)`)
    await client.query('COMMIT')

    expect((await backend.receive(['news'], wait)).map(({ content }) => content)).toEqual([
      { n: 1 },
    ])
  })

  it('expire what nobody was there for', async () => {
    const { url, backend, client } = await start({ expiryMs: 500 })
    await backend.close()
    await client.query(`SELECT channelkit_send('news', '{"n": 1}')`)
    await client.query('SELECT pg_sleep(1)')

    const later = open({ url, expiryMs: 500 })
    await client.query(`SELECT channelkit_send('news', '{"n": 2}')`)

    expect((await later.receive(['news'], wait)).map(({ content }) => content)).toEqual([{ n: 2 }])
    expect(later.counters.get('dropped.expired')).toBe(1)
  })

  it('are left alone where content is encrypted, since anybody could have written it', async () => {
    const encryption = { keys: [randomBytes(32).toString('base64')] }
    const { backend, client } = await start({ encryption })
    const inbox = await backend.openInbox<string>()
    await backend.groupAdd([{ group: 'all', channel: inbox.newChannel('ada') }])

    await client.query(`SELECT channelkit_send('news', '{}'), channelkit_group_send('all', '{}')`)
    await backend.send([{ channel: 'news', content: { n: 1 } }])

    expect((await backend.receive(['news'], wait)).map(({ content }) => content)).toEqual([
      { n: 1 },
    ])
    expect(backend.counters.get('dropped.undecryptable')).toBe(2)
  })

  it('need no more than the right to insert', async () => {
    const { backend, client, url } = await start()
    await client.query(`CREATE ROLE guest LOGIN; GRANT INSERT ON channelkit_outbox TO guest`)
    const guest = await connect(url.replace('postgres@', 'guest@'))

    await guest.query(`SELECT channelkit_send('news', '{"n": 1}')`)

    expect((await backend.receive(['news'], wait))[0]?.content).toEqual({ n: 1 })
    await client.query('REVOKE ALL ON channelkit_outbox FROM guest')
    closing.push(() => client.query('DROP ROLE guest'))
  })

  it('are made with the tables, also in a schema and with a prefix, and only once', async () => {
    const { url } = await start()
    const options = { url, schema: 'Chat', tablePrefix: 'My_' }
    const backend = open(options)
    await backend.migrate()
    await open(options).migrate()
    const client = await connect(url)

    await client.query(`SELECT "Chat".my_send('news', '{"n": 1}')`)

    expect((await backend.receive(['news'], wait))[0]?.content).toEqual({ n: 1 })
  })
})

describe('inTransaction in PostgreSQL', () => {
  it('sends encrypted content to channels, clients and groups', async () => {
    const encryption = { keys: [randomBytes(32).toString('base64')] }
    const { backend, client } = await start({ encryption })
    const site = await setup({ channelBackends: { default: { backend: () => backend } } })
    await backend.groupAdd([{ group: 'all', channel: 'news' }])

    await inTransaction(client, async () => {
      await Channel('news').send({ n: 1 })
      await Group('all').send({ n: 2 })
      await Channel('later').send({ n: 3 }, { delayMs: 10 })
    })

    const found = await backend.receive(['news'], wait)
    expect(found.map(({ content }) => content)).toEqual([{ n: 1 }, { n: 2 }])
    expect((await backend.receive(['later'], wait))[0]?.content).toEqual({ n: 3 })
    await site.close()
  })

  it('goes through PgBouncer in transaction mode', async () => {
    await using pooler = await startPgbouncer(server)
    const { url, backend: direct } = await start()
    await direct.close()
    const database = new URL(url).pathname.slice(1)
    const pool = { host: pooler.folder, port: 6432, user: 'postgres', database }
    const backend = open({ pool, pgbouncer: true, listenUrl: url })
    const site = await setup({ channelBackends: { default: { backend: () => backend } } })
    const sitePool = new pg.Pool(pool)
    const numbers = Array.from({ length: 40 }, (_, n) => n)

    await Promise.all(
      numbers.map(async (n) => {
        const client = await sitePool.connect()
        await inTransaction(client, async () => {
          await client.query('SELECT 1')
          await Channel('news').send({ n })
          if (n % 4 === 0) throw new Error('no')
        }).catch(() => {})
        client.release()
      }),
    )

    const found: unknown[] = []
    while (found.length < 30) {
      const some = await backend.receive(['news'], wait)
      if (some.length === 0) break
      found.push(...some.map(({ content }) => content.n))
    }
    expect(found.sort()).toEqual(numbers.filter((n) => n % 4 !== 0).sort())
    await sitePool.end()
    await site.close()
  })

  it('moves what a process left that died right after its commit', async () => {
    const { url, backend, client } = await start()
    await client.query(`INSERT INTO channelkit_outbox (kind, target, content, sent_at)
      VALUES (0, 'news', '1{"n": 1}', extract(epoch FROM clock_timestamp()) * 1000)`)
    const receiving = backend.receive(['news'], wait)

    expect((await receiving)[0]?.content).toEqual({ n: 1 })
    expect(await open({ url }).channels()).toEqual([])
  })

  it('drops and counts rows that make no sense', async () => {
    const { backend, client } = await start()
    await client.query(`INSERT INTO channelkit_outbox (kind, target, content)
      VALUES (0, 'a b', '1{}'), (2, '"', '1{}'), (2, '', '1{}'), (0, 'news', '1not JSON'),
      (0, 'news', repeat('x', 2000000)), (6, 'news', '1{}'), (6, '["a b","id",true,1]', '1{}'),
      (6, '["news","a b",true,1]', '1{}'), (6, '["news","id",true,"1"]', '1{}'),
      (6, '["news","id",true,9007199254740991]', '1{}'), (0, 'news', '1{"n": 1}')`)
    await client.query(`INSERT INTO channelkit_outbox (kind, target, content, sent_at)
      VALUES (0, 'news', '1{"n": 2}', 9223372036854775807)`)

    const found = await backend.receive(['news'], wait)
    expect(found.map(({ content }) => content)).toEqual([{ n: 1 }, { n: 2 }])
    expect(found[1]?.expiresAt).toBeLessThan(Date.now() + 120_000)
    expect(backend.counters.get('dropped.invalid')).toBe(10)
  })

  it('puts ten thousand rows where they go before anything else, in their order', async () => {
    const { backend, client } = await start({ capacity: 20_000 })
    await client.query(
      `SELECT channelkit_send('news', jsonb_build_object('n', n)) FROM generate_series(0, 9999) AS n`,
    )
    await backend.send([{ channel: 'news', content: { n: 10_000 } }])

    const numbers: unknown[] = []
    while (numbers.length < 10_001) {
      const some = await backend.receive(['news'], { max: 1_000, waitMs: 1_000 })
      if (some.length === 0) break
      numbers.push(...some.map(({ content }) => content.n))
    }
    expect(numbers).toEqual(Array.from({ length: 10_001 }, (_, n) => n))
  })
})
