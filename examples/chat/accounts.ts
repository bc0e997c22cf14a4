import { randomBytes, type ScryptOptions, scrypt, timingSafeEqual } from 'node:crypto'
import { database } from './database.ts'

/** Someone who has signed up. */
export interface Account {
  readonly id: number
  readonly username: string
  readonly passwordHash: string
}

declare module 'channelkit' {
  interface Register {
    user: Account
  }
}

// Takes about a tenth of a second, and 32 MiB, for each guess at a password.
const cost: ScryptOptions = { N: 2 ** 15, r: 8, p: 3, maxmem: 64 * 2 ** 20 }

database.exec(`
  CREATE TABLE IF NOT EXISTS account (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    username TEXT NOT NULL UNIQUE COLLATE NOCASE,
    passwordHash TEXT NOT NULL
  )
`)
const insert = database.prepare(`
  INSERT INTO account (username, passwordHash) VALUES (?, ?) ON CONFLICT DO NOTHING
  RETURNING id, username, passwordHash
`)
const selectById = database.prepare('SELECT id, username, passwordHash FROM account WHERE id = ?')
const selectByName = database.prepare(
  'SELECT id, username, passwordHash FROM account WHERE username = ?',
)

export function accountById(id: unknown): Account | undefined {
  return typeof id === 'number' ? (selectById.all(id)[0] as Account | undefined) : undefined
}

/** Capitals and small letters count as the same. */
export function accountByName(username: string): Account | undefined {
  return selectByName.all(username)[0] as Account | undefined
}

/** Makes an account; none when the name is taken. */
export async function makeAccount(
  username: string,
  password: string,
): Promise<Account | undefined> {
  const [account] = insert.all(username, await hashPassword(password))
  return account as Account | undefined
}

/** The account of a name, if that is its password. */
export async function checkPassword(
  username: string,
  password: string,
): Promise<Account | undefined> {
  const account = accountByName(username)
  // Names that are not there take as long, so that the time does not tell which are.
  const [salt = '', hash = ''] = (account?.passwordHash ?? 'nobody.').split('.')
  const given = Buffer.from(await hashPassword(password, salt))
  const expected = Buffer.from(`${salt}.${hash}`)
  return given.length === expected.length && timingSafeEqual(given, expected) ? account : undefined
}

function hashPassword(
  password: string,
  salt = randomBytes(16).toString('base64url'),
): Promise<string> {
  return new Promise((resolve, reject) => {
    // However a keyboard composes é, it is the same letter.
    scrypt(password.normalize('NFKC'), salt, 32, cost, (error, hash) => {
      if (error) reject(error)
      else resolve(`${salt}.${hash.toString('base64url')}`)
    })
  })
}
