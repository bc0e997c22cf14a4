/**
 * A process of its own that changes one channel session again and again, for the tests of sessions
 * that several processes share. Arguments: the SQLite file, its own name, how often.
 */
import { SqliteSessionStore } from 'channelkit/sessions'
import { silentLogger } from '../../src/logger.ts'
import { SiteSessions } from '../../src/sessions/site-sessions.ts'

const [file = '', name = '', times = '0'] = process.argv.slice(2)
const store = new SqliteSessionStore({ file })
const sessions = new SiteSessions({
  session: { store, secret: 'shared by the processes of this test' },
  isProduction: false,
  logger: silentLogger,
})

for (let index = 0; index < Number(times); index++) {
  const session = await sessions.loadOfChannel('inbox!client')
  session[`${name}${index}`] = true
  await sessions.saveOfChannel(session)
}
await store.close()
