/**
 * A process that sends within transactions or receives, for tests and measurements:
 * `node --import tsx transaction-process.ts <role> <backend URL> <from> <to>`.
 *
 * - `sender`: one transaction for each number of the range: inserts it into the table `sent`, sends it
 *   on the channel `numbers`, and by chance rolls back. Tells `{ tried: number }` of each that has
 *   ended, and ends when it has tried all.
 * - `worker`: tells `{ received: numbers }` of what it receives.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { ChannelBackend } from '../../src/backends/channel-backend.ts'
import { MysqlBackend } from '../../src/backends/sql/mysql.ts'
import { PostgresBackend } from '../../src/backends/sql/postgres.ts'
import { SqliteBackend } from '../../src/backends/sql/sqlite.ts'
import { Channel } from '../../src/channel.ts'
import { isChannelkitError } from '../../src/errors.ts'
import { setup } from '../../src/site.ts'
import { inTransaction } from '../../src/site-transactions/in-transaction.ts'
import { openSiteDatabase, type SiteDatabase } from './site-databases.ts'

const rolledBackShare = 1 / 3
const atOnce = 8

const [role, url = '', from, to] = process.argv.slice(2)
const site = await setup({ channelBackends: { default: { backend: openBackend() } } })
await site.backend().open()
process.send?.({ ready: true })
if (role === 'sender') await send(Number(from), Number(to))
else await work()

function openBackend(): ChannelBackend {
  const limits = { capacity: 1_000_000, expiryMs: 3_600_000 }
  if (url.startsWith('postgres:')) return new PostgresBackend({ url, ...limits })
  if (url.startsWith('sqlite:')) {
    return new SqliteBackend({ file: url.slice('sqlite:'.length), ...limits })
  }
  return new MysqlBackend({ url, ...limits })
}

async function send(first: number, last: number): Promise<void> {
  let next = first
  const lanes = url.startsWith('sqlite:') ? 1 : atOnce
  await Promise.all(
    Array.from({ length: lanes }, async () => {
      let database = await openSiteDatabase(url)
      while (next < last) {
        const number = next++
        try {
          await sendOne(database, number)
          process.send?.({ tried: number })
        } catch {
          // Whoever holds a lock was killed, or the connection is gone: this one is left out.
          await database.close().catch(() => {})
          await sleep(20)
          database = await openSiteDatabase(url)
        }
      }
      await database.close()
    }),
  )
  await site.close()
  process.disconnect()
}

async function sendOne(database: SiteDatabase, number: number): Promise<void> {
  const rollback = new Error('rolled back on purpose')
  try {
    await inTransaction(database.connection, async () => {
      await database.query(`INSERT INTO sent (number) VALUES (${number})`)
      await Channel('numbers').send({ number })
      if (Math.random() < rolledBackShare) throw rollback
    })
  } catch (error) {
    if (error !== rollback) throw error
  }
}

async function work(): Promise<void> {
  while (true) {
    try {
      const messages = await site.backend().receive(['numbers'], { max: 20, waitMs: 1_000 })
      if (messages.length === 0) continue
      process.send?.({ received: messages.map(({ content }) => content.number) })
    } catch (error) {
      if (!isChannelkitError(error, 'ERR_BACKEND_UNAVAILABLE')) throw error
      await sleep(20)
    }
  }
}
