/**
 * Transactional sends while senders and workers are killed:
 * `node --import tsx bench/transactions.ts [DATABASE] [COUNT] [KILL EVERY]`, on a server that it starts itself.
 *
 * DATABASE is PostgreSQL (the default), MariaDB or SQLite. A third of the transactions roll back by
 * chance. Phantoms are messages of transactions that were not committed, missing are committed ones
 * without a message; both have to be 0.
 */
import { sqlPlaces } from '../test/support/sql-places.ts'
import { runTransactions } from '../test/support/transaction-run.ts'

const [name = 'PostgreSQL', count = '50000', killEvery = '1500'] = process.argv.slice(2)
const openPlace = sqlPlaces[name]
if (!openPlace) throw new Error(`no database ${name}; give ${Object.keys(sqlPlaces).join(', ')}`)
await using place = await openPlace()
const result = await runTransactions({
  url: await place.newUrl(),
  count: Number(count),
  killEvery: Number(killEvery),
  senders: name === 'SQLite' ? 1 : 2,
  workers: 2,
})
console.log(name, result, `${Math.round((1_000 * result.tried) / result.tookMs)} a second`)
