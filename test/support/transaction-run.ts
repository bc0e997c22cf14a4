import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { setup } from '../../src/site.ts'
import { openSiteDatabase } from './site-databases.ts'

const script = fileURLToPath(new URL('./transaction-process.ts', import.meta.url))

// Numbers that a killed sender may have been at; none of them is tried again.
const leftOut = 50
const settleMs = 60_000

export interface TransactionRunOptions {
  /** Of a backend, in an empty database. */
  readonly url: string
  /** How many transactions are tried. */
  readonly count: number
  /** After so many transactions a sender or a worker is killed, by turns. */
  readonly killEvery: number
  readonly senders: number
  readonly workers: number
}

/** What became of each transaction and its message. */
export interface TransactionRunResult {
  readonly tried: number
  readonly committed: number
  readonly kills: number
  /** Messages that came to the channel, of transactions that were not committed. */
  readonly phantoms: number
  /** Transactions that were committed, whose messages did not come to the channel. */
  readonly missing: number
  readonly doubled: number
  readonly received: number
  /** Received though not committed, and received twice. */
  readonly wronglyReceived: number
  /** Taken by workers that were killed with them. */
  readonly lostWithWorkers: number
  readonly tookMs: number
}

/** Statements, by database, that note each row which comes to the channel. */
const audits = {
  postgres: [
    `CREATE FUNCTION note_stored() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      INSERT INTO stored (number) VALUES ((substr(NEW.content, 2)::json->>'number')::int);
      RETURN NULL;
    END $$`,
    `CREATE TRIGGER note_stored AFTER INSERT ON channelkit_message
      FOR EACH ROW EXECUTE FUNCTION note_stored()`,
  ],
  mariadb: [
    `CREATE TRIGGER note_stored AFTER INSERT ON channelkit_message FOR EACH ROW
      INSERT INTO stored (number)
      VALUES (JSON_VALUE(CONVERT(SUBSTR(NEW.content, 2) USING utf8mb4), '$.number'))`,
  ],
  sqlite: [
    `CREATE TRIGGER note_stored AFTER INSERT ON channelkit_message BEGIN
      INSERT INTO stored (number) VALUES (json_extract(substr(NEW.content, 2), '$.number'));
    END`,
  ],
} as const

/**
 * Tries transactions that insert a number and send it, in processes that are killed again and again,
 * beside workers that are killed too; then compares what was committed with what came to the channel.
 */
export async function runTransactions(
  options: TransactionRunOptions,
): Promise<TransactionRunResult> {
  const { url, count, killEvery, senders, workers } = options
  const site = await setup({ channelBackends: { default: { backend: url } } })
  await site.backend().open()
  const database = await openSiteDatabase(url)
  await database.query('CREATE TABLE sent (number INTEGER PRIMARY KEY)')
  await database.query('CREATE TABLE stored (number INTEGER)')
  const kind = url.slice(0, url.indexOf(':')) as keyof typeof audits
  for (const text of audits[kind]) await database.query(text)

  const startedAt = performance.now()
  const received: number[] = []
  let tried = 0
  let kills = 0
  const running = new Set<ChildProcess>()
  const start = (role: string, values: readonly number[] = []): ChildProcess => {
    const child = fork(script, [role, url, ...values.map(String)], {
      execArgv: ['--import', 'tsx'],
    })
    running.add(child)
    child.once('exit', () => running.delete(child))
    return child
  }
  const startWorker = (): ChildProcess => {
    const child = start('worker')
    child.on('message', (message: { readonly received?: readonly number[] }) => {
      received.push(...(message.received ?? []))
    })
    return child
  }
  const workerProcesses = Array.from({ length: workers }, startWorker)
  const share = Math.ceil(count / senders)
  const lanes = Array.from({ length: senders }, (_, index) => ({
    next: index * share * 2,
    triesLeft: share,
    child: undefined as ChildProcess | undefined,
  }))
  const sending = lanes.map(async (lane) => {
    while (lane.triesLeft > 0) {
      const child = start('sender', [lane.next, lane.next + lane.triesLeft])
      lane.child = child
      child.on('message', (message: { readonly tried?: number }) => {
        if (message.tried === undefined) return
        tried++
        lane.triesLeft--
        lane.next = Math.max(lane.next, message.tried + 1)
      })
      const [code] = await once(child, 'exit')
      // One that ended by itself has left out what met a lock that lasted.
      lane.next += leftOut
      if (code !== null && code !== 0) throw new Error(`a sender ended with ${code}`)
    }
  })
  const isSent = Promise.all(sending).then(() => true)
  while (!(await Promise.race([isSent, sleep(5)]))) {
    if (tried < (kills + 1) * killEvery) continue
    const isSender = kills++ % 2 === 0
    const index = Math.floor(kills / 2)
    if (isSender) {
      lanes[index % senders]?.child?.kill('SIGKILL')
    } else {
      const at = index % workers
      workerProcesses[at]?.kill('SIGKILL')
      workerProcesses[at] = startWorker()
    }
  }

  const number = async (text: string): Promise<number> => {
    return Number((await database.query(`SELECT (${text}) AS found`))[0]?.found)
  }
  const deadline = performance.now() + settleMs
  const waiting = `(SELECT count(*) FROM channelkit_outbox) + (SELECT count(*) FROM channelkit_message)`
  while ((await number(waiting)) > 0 && performance.now() < deadline) await sleep(50)
  // Workers tell of what they took in a moment.
  await sleep(500)
  const tookMs = performance.now() - startedAt
  for (const child of running) {
    const exited = once(child, 'exit')
    child.kill('SIGKILL')
    await exited
  }

  const sent = new Set((await database.query('SELECT number FROM sent')).map((row) => row.number))
  const result = {
    tried,
    committed: sent.size,
    kills,
    phantoms: await number(
      'SELECT count(*) FROM stored WHERE NOT EXISTS (SELECT 1 FROM sent WHERE sent.number = stored.number)',
    ),
    missing: await number(
      'SELECT count(*) FROM sent WHERE NOT EXISTS (SELECT 1 FROM stored WHERE sent.number = stored.number)',
    ),
    doubled: await number('SELECT count(*) - count(DISTINCT number) FROM stored'),
    received: received.length,
    wronglyReceived:
      received.filter((each) => !sent.has(each)).length + received.length - new Set(received).size,
    lostWithWorkers: sent.size - new Set(received).size,
    tookMs: Math.round(tookMs),
  }
  await database.close()
  await site.close()
  return result
}
