import { join } from 'node:path'
import { MysqlBackend } from 'channelkit/mysql'
import type { TestStore } from 'channelkit/testing'
import mysql from 'mysql2/promise'
import { startProxy } from './proxy.ts'
import type { StartedService } from './service-process.ts'

let stores = 0

/** Tables of its own in a MariaDB that a test started, behind a proxy that can be cut. */
export async function createMysqlStore({ folder }: StartedService): Promise<TestStore> {
  const proxy = await startProxy(join(folder, 'mariadb.sock'))
  const tablePrefix = `store_${++stores}_`
  const url = `mysql://root@127.0.0.1:${proxy.port}/site`
  return {
    open: async (options) => new MysqlBackend({ ...options, url, tablePrefix }),
    breakConnection: () => proxy.cut(),
    async dispose() {
      const tables = ['meta', 'message', 'inbox', 'membership', 'line', 'process', 'outbox']
      await runMysql(folder, `DROP TABLE IF EXISTS ${tables.map((name) => tablePrefix + name)}`)
      await proxy.close()
    },
  }
}

/** Runs statements as the server's owner; the result is the rows of the last. */
export async function runMysql(folder: string, text: string): Promise<unknown> {
  const socketPath = join(folder, 'mariadb.sock')
  const client = await mysql.createConnection({ socketPath, user: 'root', database: 'site' })
  try {
    const [found] = await client.query(text)
    return found
  } finally {
    await client.end()
  }
}
