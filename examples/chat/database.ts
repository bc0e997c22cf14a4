import { mkdirSync } from 'node:fs'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import Database from 'libsql'

/** The SQLite file of everything this site keeps: messages, accounts and sessions. */
export const file =
  process.env.CHAT_DATABASE ?? fileURLToPath(new URL('.channelkit/chat.sqlite', import.meta.url))
mkdirSync(dirname(file), { recursive: true })

export const database = new Database(file, { timeout: 5_000 })
database.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;')
