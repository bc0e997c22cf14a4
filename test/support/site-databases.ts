import type { PlainConnection } from 'channelkit'
import mysql from 'mysql2/promise'
import pg from 'pg'
import { openDatabase } from './sqlite-database.ts'

/** The site's own way into a database in which a backend has its tables. */
export interface SiteDatabase {
  readonly connection: PlainConnection
  /** Runs a statement; the result is its rows. */
  query(text: string): Promise<readonly Record<string, unknown>[]>
  close(): Promise<void>
}

/** Connects to the database of a backend's URL as a site would, by the driver alone. */
export async function openSiteDatabase(url: string): Promise<SiteDatabase> {
  if (url.startsWith('sqlite:')) {
    const database = openDatabase(url.slice('sqlite:'.length))
    return {
      connection: database,
      query: async (text) => database.prepare(text).all() as Record<string, unknown>[],
      close: async () => void database.close(),
    }
  }
  if (url.startsWith('postgres:')) {
    const client = new pg.Client({ connectionString: url })
    await client.connect()
    return {
      connection: client,
      query: async (text) => (await client.query(text)).rows,
      close: () => client.end(),
    }
  }
  const connection = await mysql.createConnection({ uri: url.replace(/^mariadb:/, 'mysql:') })
  return {
    connection,
    query: async (text) => (await connection.query(text))[0] as Record<string, unknown>[],
    close: () => connection.end(),
  }
}
