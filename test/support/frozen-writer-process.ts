/**
 * A worker process whose one consumer is linearized, holds its sends and keeps a channel session:
 * `node --import tsx frozen-writer-process.ts <backend URL> <folder> <lease ms>`.
 *
 * It puts `content.n` into the session and sends it on `out`, takes `content.ms`, and tells the
 * parent `begin <n>` and `end <n>`, and `failed <code>` of what the worker logs as an error.
 */
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Channel, channelSession, defineRouting, holdSends, linearize, setup } from 'channelkit'
import { SqliteSessionStore } from 'channelkit/sessions'
import { silentLogger } from '../../src/logger.ts'

const [url = '', folder = '', leaseMs] = process.argv.slice(2)
const move = linearize(
  holdSends(
    channelSession(async (message) => {
      const { n, ms } = message.content
      process.send?.(`begin ${n}`)
      message.channelSession.state = Number(n)
      await Channel('out').send({ n })
      await sleep(Number(ms))
      process.send?.(`end ${n}`)
    }),
  ),
)
const site = await setup(
  {
    channelBackends: {
      default: {
        backend: url,
        routing: defineRouting({ moves: move }),
      },
    },
    session: {
      store: new SqliteSessionStore({ file: join(folder, 'sessions.db') }),
      secret: 'shared by the processes of this test',
    },
    worker: { lineLeaseMs: Number(leaseMs) },
  },
  {
    logger: {
      ...silentLogger,
      error: (facts: object) => {
        const { err } = facts as { err?: { code?: string } }
        process.send?.(`failed ${err?.code}`)
      },
    },
  },
)
await (await site.worker()).start()
process.send?.('ready')
// Whose parent has gone has nothing to do.
process.once('disconnect', () => process.exit())
