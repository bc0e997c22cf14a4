/**
 * A process on a SQLite backend, for tests: `node --import tsx sqlite-process.ts <role> <file>`,
 * told what to do and telling what it has done over Node's IPC.
 *
 * - `reader`: sends `{ received: numbers }` for each batch from channel `work`.
 * - `writer <from> <to>`: sends the numbers in between, then `{ sent: count }`.
 * - `holder <ms>`: holds the write lock so long, having said `{ held: true }`.
 *
 * A `stop` message closes the backend; the process then ends by itself.
 */
import { SqliteBackend } from '../../src/backends/sql/sqlite.ts'
import { loadSqliteDriver } from '../../src/backends/sql/sqlite-driver.ts'
import { isChannelkitError } from '../../src/errors.ts'

const [role, file = '', ...numbers] = process.argv.slice(2)
const [first = 0, last = 0] = numbers.map(Number)

if (role === 'reader') await read()
else if (role === 'writer') await write()
else hold()

async function read(): Promise<void> {
  const backend = new SqliteBackend({ file })
  process.once('message', () => {
    void backend.close().then(() => process.disconnect())
  })
  process.send?.({ ready: true })
  while (true) {
    try {
      const messages = await backend.receive(['work', 'other'], {
        max: 20,
        waitMs: Number.POSITIVE_INFINITY,
      })
      process.send?.({ received: messages.map(({ content }) => content.number) })
    } catch (error) {
      if (isChannelkitError(error, 'ERR_BACKEND_CLOSED')) return
      throw error
    }
  }
}

async function write(): Promise<void> {
  const backend = new SqliteBackend({ file, capacity: 1_000_000 })
  for (let number = first; number < last; number += 10) {
    const batch = Array.from({ length: Math.min(10, last - number) }, (_, index) => ({
      channel: index % 2 === 0 ? 'work' : 'other',
      content: { number: number + index },
    }))
    const failures = await backend.send(batch)
    if (failures.length > 0) throw failures[0]?.error
  }
  await backend.close()
  process.send?.({ sent: last - first })
  process.disconnect()
}

function hold(): void {
  const database = loadSqliteDriver()(file)
  database.exec('PRAGMA busy_timeout = 1000')
  database.exec('BEGIN EXCLUSIVE')
  process.send?.({ held: true })
  setTimeout(() => {
    database.exec('ROLLBACK')
    database.close()
    process.disconnect()
  }, first)
}
