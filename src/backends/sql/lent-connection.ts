import type { PostgresConnection, PostgresPool, PostgresQuery } from './postgres-driver.ts'

/**
 * Takes a connection out of a pool of the site's, whose options may let a call wait for ever: it gets
 * one, and each statement its answer, within a time.
 */
export async function lendConnection(
  pool: PostgresPool,
  waitMs: number,
  answerMs: number,
): Promise<PostgresConnection> {
  const taking = pool.connect()
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), waitMs)
  })
  try {
    const connection = await Promise.race([taking, late])
    if (connection) return withTimes(connection, answerMs)
  } finally {
    clearTimeout(timer)
  }
  taking.then(
    (connection) => connection.release(),
    () => {},
  )
  throw new Error(`the pool gave no connection within ${waitMs} ms: timeout`)
}

function withTimes(connection: PostgresConnection, answerMs: number): PostgresConnection {
  return {
    query(query) {
      const { text, ...others }: PostgresQuery = typeof query === 'string' ? { text: query } : query
      return connection.query({ text, ...others, query_timeout: answerMs })
    },
    on: connection.on.bind(connection) as PostgresConnection['on'],
    removeListener: connection.removeListener.bind(connection),
    release: (error) => connection.release(error),
  }
}
