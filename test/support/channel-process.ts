/**
 * A process on a backend, for tests: `node --import tsx channel-process.ts <role> <backend URL>`,
 * told what to do and telling what it has done over Node's IPC.
 *
 * - `reader`: sends `{ received: numbers }` for each batch from the channels `work` and `other`, and
 *   goes on through outages.
 * - `writer <from> <to>`: sends the numbers in between in marked batches of ten, each until it is
 *   stored, then `{ sent: count }`.
 *
 * A `stop` message closes the backend; the process then ends by itself.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { MysqlBackend } from '../../src/backends/sql/mysql.ts'
import { PostgresBackend } from '../../src/backends/sql/postgres.ts'
import { isChannelkitError } from '../../src/errors.ts'

const [role, url = '', ...numbers] = process.argv.slice(2)
const [first = 0, last = 0] = numbers.map(Number)
const Backend = url.startsWith('postgres:') ? PostgresBackend : MysqlBackend
const backend = new Backend({ url, capacity: 1_000_000, busyMs: 2_000 })
await backend.open()

if (role === 'reader') await read()
else await write()

async function read(): Promise<void> {
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
      if (!isChannelkitError(error, 'ERR_BACKEND_UNAVAILABLE')) throw error
      await sleep(20)
    }
  }
}

async function write(): Promise<void> {
  const sender = `writer-${process.pid}`
  for (let number = first; number < last; number += 10) {
    const batch = Array.from({ length: Math.min(10, last - number) }, (_, index) => ({
      channel: index % 2 === 0 ? 'work' : 'other',
      content: { number: number + index },
    }))
    for (let isStored = false; !isStored; ) {
      try {
        const failures = await backend.send(batch, { mark: { sender, number } })
        if (failures.length > 0) throw failures[0]?.error
        isStored = true
      } catch (error) {
        if (!isChannelkitError(error, 'ERR_BACKEND_UNAVAILABLE')) throw error
        await sleep(20)
      }
    }
  }
  await backend.close()
  process.send?.({ sent: last - first })
  process.disconnect()
}
