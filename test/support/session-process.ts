/**
 * A process of its own that changes one channel session again and again, for the tests of sessions
 * that several processes share. Arguments: where the store is (the path of a SQLite file, or
 * `redis`, `redis-plain` or `postgres` and a path), its own name, how often. Waits at the end until
 * all three of its kind are through, and writes how many keys there are then.
 */
import { join } from 'node:path'
import { SqliteSessionStore, withPostgresUpdates, withRedisUpdates } from 'channelkit/sessions'
import connectPostgres from 'connect-pg-simple'
import { RedisStore } from 'connect-redis'
import session from 'express-session'
import pg from 'pg'
import { createClient } from 'redis'
import { silentLogger } from '../../src/logger.ts'
import type { SessionStore } from '../../src/sessions/session-store.ts'
import { SiteSessions } from '../../src/sessions/site-sessions.ts'

const [place = '', name = '', times = '0'] = process.argv.slice(2)
const { store, close } = await open(place)
const sessions = new SiteSessions({
  session: { store, secret: 'shared by the processes of this test' },
  isProduction: false,
  logger: silentLogger,
})

for (let index = 0; index < Number(times); index++) {
  const kept = await sessions.loadOfChannel('inbox!client')
  kept[`${name}${index}`] = true
  await sessions.saveOfChannel(kept)
}
const done = await sessions.loadOfChannel('inbox!done')
done[name] = true
await sessions.saveOfChannel(done)
while (Object.keys(await sessions.loadOfChannel('inbox!done')).length < 3) {
  await new Promise((resolve) => setTimeout(resolve, 20))
}
const keys = Object.keys(await sessions.loadOfChannel('inbox!client')).length
process.stdout.write(JSON.stringify({ keys }))
await close()

async function open(given: string): Promise<{ store: SessionStore; close(): Promise<unknown> }> {
  const [kind, path = ''] = given.split(' ')
  if (kind === 'redis' || kind === 'redis-plain') {
    const client = createClient({ socket: { path, tls: false } })
    await client.connect()
    const plain = new RedisStore({ client })
    return {
      store: kind === 'redis' ? withRedisUpdates(plain) : plain,
      close: () => client.close(),
    }
  }
  if (kind === 'postgres') {
    const pool = new pg.Pool({ host: path, user: 'postgres', database: 'postgres' })
    const plain = new (connectPostgres(session))({ pool, pruneSessionInterval: false })
    return { store: withPostgresUpdates(plain, { pool }), close: () => pool.end() }
  }
  const sqlite = new SqliteSessionStore({ file: join(given) })
  return { store: sqlite, close: () => sqlite.close() }
}
