import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { issueTicket, setup } from 'channelkit'
import { SqliteBackend } from 'channelkit/sqlite'
import { MemoryStore } from 'express-session'
import { expect, it } from 'vitest'
import { setCurrentSite } from '../../../src/current-site.ts'
import { useTicket } from '../../../src/sessions/ticket.ts'

it('lets one of two processes on a SQLite file use a ticket', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'channelkit-ticket-'))
  const file = join(folder, 'channels.sqlite')
  const [one, other] = [new SqliteBackend({ file }), new SqliteBackend({ file })]
  await Promise.all([one.open(), other.open()])
  const site = await setup({
    channelBackends: { default: { backend: one } },
    session: { store: new MemoryStore(), secret: 'a secret' },
  })
  const origin = 'https://example.com'

  const ticket = await issueTicket('sid', { origin: `${origin}/page` })
  const keys = await Promise.all(
    [one, other, one, other].map((backend) => useTicket(ticket, origin, backend, ['a secret'])),
  )

  expect(keys.filter((key) => key !== undefined)).toEqual(['sid'])
  setCurrentSite(undefined)
  await site.close()
  await other.close()
  await rm(folder, { recursive: true })
})
