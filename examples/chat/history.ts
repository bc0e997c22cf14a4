import { mkdirSync } from 'node:fs'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import Database from 'libsql'

/** A message that someone wrote. */
export interface Draft {
  readonly room: string
  /** Made up by the page, so that a message sent once more is not saved once more. */
  readonly key: string
  readonly nickname: string
  readonly text: string
}

/** A message as everyone in its room sees it. */
export interface SavedMessage {
  /** Grows with every message. */
  readonly id: number
  readonly key: string
  readonly nickname: string
  readonly text: string
  /** Milliseconds since the epoch. */
  readonly sentAt: number
}

const file =
  process.env.CHAT_HISTORY ?? fileURLToPath(new URL('.channelkit/chat.sqlite', import.meta.url))
mkdirSync(dirname(file), { recursive: true })
const database = new Database(file, { timeout: 5_000 })
database.exec(`
  PRAGMA journal_mode = WAL;
  PRAGMA synchronous = NORMAL;
  CREATE TABLE IF NOT EXISTS message (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    room TEXT NOT NULL,
    key TEXT NOT NULL,
    nickname TEXT NOT NULL,
    text TEXT NOT NULL,
    sentAt INTEGER NOT NULL,
    UNIQUE (room, key)
  );
  CREATE INDEX IF NOT EXISTS message_by_room ON message (room, id);
`)

const insert = database.prepare(`
  INSERT INTO message (room, key, nickname, text, sentAt) VALUES (?, ?, ?, ?, ?)
  ON CONFLICT (room, key) DO UPDATE SET key = excluded.key
  RETURNING id, key, nickname, text, sentAt
`)
const selectRecent = database.prepare(`
  SELECT id, key, nickname, text, sentAt FROM message
  WHERE room = :room AND id > min(:after, coalesce(
    (SELECT id FROM message WHERE room = :room ORDER BY id DESC LIMIT 1 OFFSET 50), 0))
  ORDER BY id DESC LIMIT 500
`)

/** Saves a message; one that is there already is returned as it was saved. */
export function saveMessage({ room, key, nickname, text }: Draft): SavedMessage {
  const [saved] = insert.all(room, key, nickname, text, Date.now())
  return saved as SavedMessage
}

/**
 * The last 50 messages of a room and all after the one with the id `after`, up to 500, oldest first.
 *
 * @param after - the last id the page has seen; 0 when it has none, which asks for the last 50.
 */
export function recentMessages(room: string, after: number): readonly SavedMessage[] {
  const seen = after === 0 ? Number.MAX_SAFE_INTEGER : after
  return (selectRecent.all({ room, after: seen }) as SavedMessage[]).reverse()
}
