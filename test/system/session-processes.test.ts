import { execFile } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { SqliteSessionStore } from 'channelkit/sessions'
import { describe, expect, it } from 'vitest'
import { silentLogger } from '../../src/logger.ts'
import { SiteSessions } from '../../src/sessions/site-sessions.ts'
import { repository, withoutTestRunner } from '../support/cli.ts'

const execute = promisify(execFile)

describe('a channel session in SqliteSessionStore', () => {
  it('loses no key that three processes save at once', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'channelkit-session-'))
    const file = join(folder, 'sessions.sqlite')
    const script = join(repository, 'test/support/session-process.ts')
    const options = { cwd: repository, env: withoutTestRunner(process.env) }

    await Promise.all(
      ['a', 'b', 'c'].map((name) =>
        execute(process.execPath, ['--import', 'tsx', script, file, name, '200'], options),
      ),
    )

    const store = new SqliteSessionStore({ file })
    const sessions = new SiteSessions({
      session: { store, secret: 'shared by the processes of this test' },
      isProduction: false,
      logger: silentLogger,
    })
    const session = await sessions.loadOfChannel('inbox!client')
    await store.close()
    await rm(folder, { recursive: true })
    expect(Object.keys(session)).toHaveLength(600)
  })
})
