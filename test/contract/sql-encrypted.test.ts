import { randomBytes } from 'node:crypto'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SqliteBackend } from 'channelkit/sqlite'
import { describeChannelBackend } from 'channelkit/testing'
import { afterAll, describe, expect, it } from 'vitest'
import { createPostgresStore } from '../support/postgres-store.ts'
import { startPostgres } from '../support/service-process.ts'
import { createSqliteStore } from '../support/sqlite-store.ts'

const server = await startPostgres()
afterAll(() => server[Symbol.asyncDispose]())

const encryption = { keys: [randomBytes(32)] }

describeChannelBackend('SqliteBackend with encryption', () => createSqliteStore({ encryption }))
describeChannelBackend('PostgresBackend with encryption', () =>
  createPostgresStore(server, { encryption }),
)

describe('encryption in SQLite', () => {
  it('leaves nothing to be read, and passes over what has another key, also in lines', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'channelkit-sealed-'))
    const file = join(folder, 'site.db')
    const backend = new SqliteBackend({ file, encryption })
    const stranger = new SqliteBackend({ file, encryption: { keys: [randomBytes(32)] } })
    const inbox = await backend.openInbox<string>()
    const reply = inbox.newChannel('ann')
    const secret = 'whisper-7f3a'
    const content = { content: secret, reply_channel: reply }
    await backend.groupAdd([
      { group: 'clear-group', channel: reply },
      { group: 'clear-group', channel: 'work' },
    ])
    await stranger.send([{ channel: 'work', content }])
    await backend.send([{ channel: 'work', content }])
    await backend.groupSend([{ group: 'clear-group', content }])
    const files = await readdir(folder)
    const bytes = await Promise.all(files.map((name) => readFile(join(folder, name), 'latin1')))

    const lines = { channels: ['work'], leaseMs: 1_000 }
    const [first, ...others] = await backend.receive(['work'], { max: 10, waitMs: 0, lines })
    const next = { channels: ['work'], leaseMs: 1_000 }
    const { messages } = await backend.advanceLines(first?.turn ? [first.turn] : [], next)
    const [delivery] = await inbox.receive({ max: 5, waitMs: 1_000 })

    expect(bytes.join('')).toContain(reply.slice(inbox.name.length))
    expect(bytes.join('')).not.toContain(secret)
    const received = [first, ...others, ...messages, delivery].map((each) => each?.content)
    expect(received).toEqual([content, content, content])
    expect(backend.counters.get('dropped.undecryptable')).toBe(1)
    await Promise.all([backend.close(), stranger.close()])
    await rm(folder, { recursive: true })
  })
})
