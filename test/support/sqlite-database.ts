import type { SqliteDatabase, SqliteStatement } from 'channelkit/sqlite'
import { loadSqliteDriver } from '../../src/backends/sql/sqlite-driver.ts'

/**
 * Opens a SQLite file beside the backend, to lock it, fill it or look into it. By the same driver:
 * two SQLite libraries in one process do not see each other's locks.
 */
export function openDatabase(file: string): SqliteDatabase {
  const database = loadSqliteDriver()(file)
  database.prepare('PRAGMA busy_timeout = 1000').all()
  return database
}

/** A database that notes each statement it runs. */
export function noting(database: SqliteDatabase, notes: string[]): SqliteDatabase {
  return {
    prepare(text): SqliteStatement {
      const statement = database.prepare(text)
      return {
        all(...values) {
          notes.push(text)
          return statement.all(...values)
        },
        run(...values) {
          notes.push(text)
          return statement.run(...values)
        },
      }
    },
    exec(text) {
      notes.push(text)
      return database.exec(text)
    },
    close: () => database.close(),
  }
}
