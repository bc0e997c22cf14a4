import { database } from './database.ts'

/** A message that someone wrote. */
export interface Draft {
  /** The group of its room. */
  readonly room: string
  /** Made up by the page, so that a message sent once more is not saved once more. */
  readonly key: string
  readonly author: string
  /** Whether the author has signed in by that name, or is a guest who goes by it. */
  readonly isUser: boolean
  readonly text: string
}

/** A message as everyone in its room sees it. */
export interface SavedMessage extends Omit<Draft, 'room'> {
  /** Grows with every message. */
  readonly id: number
  /** Milliseconds since the epoch. */
  readonly sentAt: number
}

type Row = Omit<SavedMessage, 'isUser'> & { readonly isUser: 0 | 1 }

database.exec(`
  CREATE TABLE IF NOT EXISTS post (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    room TEXT NOT NULL,
    key TEXT NOT NULL,
    author TEXT NOT NULL,
    isUser INTEGER NOT NULL,
    text TEXT NOT NULL,
    sentAt INTEGER NOT NULL,
    UNIQUE (room, key)
  );
  CREATE INDEX IF NOT EXISTS post_by_room ON post (room, id);
`)

const insert = database.prepare(`
  INSERT INTO post (room, key, author, isUser, text, sentAt) VALUES (?, ?, ?, ?, ?, ?)
  ON CONFLICT (room, key) DO UPDATE SET key = excluded.key
  RETURNING id, key, author, isUser, text, sentAt
`)
const selectRecent = database.prepare(`
  SELECT id, key, author, isUser, text, sentAt FROM post
  WHERE room = :room AND id > min(:after, coalesce(
    (SELECT id FROM post WHERE room = :room ORDER BY id DESC LIMIT 1 OFFSET 50), 0))
  ORDER BY id DESC LIMIT 500
`)

/** Saves a message; one that is there already is returned as it was saved. */
export function saveMessage({ room, key, author, isUser, text }: Draft): SavedMessage {
  const [saved] = insert.all(room, key, author, isUser ? 1 : 0, text, Date.now())
  return messageOf(saved as Row)
}

/**
 * The last 50 messages of a room and all after the one with the id `after`, up to 500, oldest first.
 *
 * @param after - the last id the page has seen; 0 when it has none, which asks for the last 50.
 */
export function recentMessages(room: string, after: number): readonly SavedMessage[] {
  const seen = after === 0 ? Number.MAX_SAFE_INTEGER : after
  return (selectRecent.all({ room, after: seen }) as Row[]).map(messageOf).reverse()
}

function messageOf(row: Row): SavedMessage {
  return { ...row, isUser: row.isUser === 1 }
}
