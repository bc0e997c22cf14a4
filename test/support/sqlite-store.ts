import { mkdir, mkdtemp, rename, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { SqliteBackend, type SqliteBackendOptions } from 'channelkit/sqlite'
import type { TestStore } from 'channelkit/testing'

// Longer than a connection goes on without looking whether its file is still there.
const unnoticedMs = 10

/** A SQLite database in a directory of its own. Its connection is cut by moving the file away. */
export async function createSqliteStore(
  settings: Partial<SqliteBackendOptions> = {},
): Promise<TestStore> {
  const directory = await mkdtemp(join(tmpdir(), 'channelkit-sqlite-'))
  const file = join(directory, 'site.db')
  const aside = join(directory, 'aside.db')
  return {
    open: async (options) => new SqliteBackend({ ...settings, ...options, file }),
    async breakConnection() {
      await moveDatabase(file, aside)
      // A directory cannot be opened as a database.
      await mkdir(file)
      await sleep(unnoticedMs)
      return async () => {
        await rm(file, { recursive: true })
        await moveDatabase(aside, file)
      }
    },
    dispose: () => rm(directory, { recursive: true }),
  }
}

async function moveDatabase(from: string, to: string): Promise<void> {
  for (const suffix of ['', '-wal', '-shm']) await rename(from + suffix, to + suffix)
}
