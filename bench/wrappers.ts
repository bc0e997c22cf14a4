/**
 * What each wrapper costs: `node --import tsx bench/wrappers.ts [rounds] [backend URL]`.
 *
 * CPU microseconds of sending a message, running a consumer that does next to nothing, and all
 * between; and how often that calls the session store. On memory, with the memory store of
 * express-session, and on SQLite, with `SqliteSessionStore`; or on what a backend URL leads to, which
 * is emptied, with `SqliteSessionStore`: then only what this process uses counts. The messages are of 500 open sockets
 * whose users are signed in, one of each under way. Wrappers take turns, round by round.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  type Consumer,
  type Content,
  channelSession,
  channelSessionUser,
  defineRouting,
  httpSession,
  httpSessionUser,
  linearize,
  type Message,
  setup,
  transferUser,
  wrapConsumer,
} from 'channelkit'
import { type SessionStore, SqliteSessionStore, signCookie } from 'channelkit/sessions'
import session from 'express-session'

const rounds = Number(process.argv[2] ?? 15)
const givenUrl = process.argv[3]
const turnsPerRound = 4
const warmUpRounds = 3
const secret = 'what signs the cookies of this benchmark'
const user = { id: 1, username: 'ann' }
const clients = Array.from({ length: 500 }, (_, index) => `client${index}!${index}`)
const storeMethods = ['get', 'set', 'update', 'destroy', 'touch'] as const

const plain = async (_message: Message): Promise<void> => {
  await Promise.resolve()
}
const changing = channelSession(async (message) => {
  message.channelSession.count = Number(message.channelSession.count ?? 0) + 1
})

const consumers: Readonly<Record<string, Consumer>> = {
  none: plain,
  'channelSession, read': channelSession(plain),
  'channelSession, changed': changing,
  httpSession: httpSession(plain),
  httpSessionUser: httpSessionUser(plain),
  channelSessionUser: channelSessionUser(plain),
  linearize: linearize(plain),
  'linearize(channelSession), read': linearize(channelSession(plain)),
  'linearize(channelSession), changed': linearize(changing),
}

const directory = mkdtempSync(join(tmpdir(), 'channelkit-bench-'))
try {
  if (givenUrl === undefined) {
    await measure('memory', 'memory:', new session.MemoryStore())
  }
  const store = new SqliteSessionStore({ file: join(directory, 'sessions.sqlite') })
  const url = givenUrl ?? `sqlite:${join(directory, 'channels.sqlite')}`
  await measure(url.slice(0, url.indexOf(':')), url, store)
  await store.close()
} finally {
  rmSync(directory, { recursive: true })
}

async function measure(name: string, url: string, store: SessionStore): Promise<void> {
  const calls = countCalls(store)
  let left = 0
  let onDone = (): void => {}
  // Outside of the wrappers, so that a message has ended when its session is saved.
  const counted = (consumer: Consumer): Consumer => {
    const outer: Consumer = async (message) => {
      await consumer(message)
      left--
      if (left === 0) onDone()
    }
    return wrapConsumer(outer, consumer)
  }
  const connect = channelSession(
    httpSessionUser(async (message) => transferUser(message.httpSession, message.channelSession)),
  )
  const names = Object.keys(consumers)
  const routes = names.map((each, index) => [`bench-${index}`, counted(consumers[each] ?? plain)])
  const routing = defineRouting({
    'websocket.connect': counted(connect),
    ...(Object.fromEntries(routes) as Readonly<Record<string, Consumer>>),
  })
  const site = await setup({
    channelBackends: { default: { backend: url, routing } },
    session: { store, secret },
    auth: { user: () => user, hash: () => 'the hash of a password' },
  })
  const backend = site.backend()
  await backend.flush()
  const worker = await site.worker()
  await worker.start()
  const sendToAll = async (channel: string, content: Content): Promise<void> => {
    left = clients.length
    const done = new Promise<void>((resolve) => {
      onDone = resolve
    })
    const failures = await backend.send(
      clients.map((client) => ({ channel, content: { ...content, reply_channel: client } })),
    )
    if (failures[0]) throw failures[0].error
    await done
  }
  await new Promise((resolve) => {
    store.set('site', { cookie: { originalMaxAge: null } }, resolve)
  })
  const cookies = { 'connect.sid': signCookie('site', [secret]) }
  await sendToAll('websocket.connect', { path: '/', get: {}, cookies })

  const micros = names.map((): number[] => [])
  const called = names.map((): string => '')
  for (let round = -warmUpRounds; round < rounds; round++) {
    for (const [index, each] of micros.entries()) {
      calls.clear()
      const begin = process.cpuUsage()
      for (let turn = 0; turn < turnsPerRound; turn++) {
        await sendToAll(`bench-${index}`, { path: '/', content: 'hello' })
      }
      // What the worker does after the last consumer counts too.
      await sleep(10)
      const { user: own, system } = process.cpuUsage(begin)
      if (round < 0) continue
      const messages = clients.length * turnsPerRound
      each.push((own + system) / messages)
      called[index] = [...calls]
        .map(([method, count]) => `${count / messages} ${method}`)
        .join(', ')
    }
  }
  await worker.stop()
  await site.close()
  console.log(`${name}, µs of CPU per message (beyond none) · calls of the session store`)
  const [none = 0] = micros.map(median)
  for (const [index, each] of names.entries()) {
    const cost = median(micros[index] ?? [])
    const figures = `${cost.toFixed(1)} (${(cost - none).toFixed(1)})`
    console.log(`  ${each.padEnd(36)} ${figures.padEnd(16)} ${called[index] || '-'}`)
  }
}

/** Counts how often each method of a store is called from outside of it. */
function countCalls(store: SessionStore): Map<string, number> {
  const calls = new Map<string, number>()
  for (const method of storeMethods) {
    const own = store[method]
    if (typeof own !== 'function') continue
    const counting = (...args: unknown[]): unknown => {
      calls.set(method, (calls.get(method) ?? 0) + 1)
      return Reflect.apply(own, store, args)
    }
    Object.defineProperty(store, method, { value: counting, writable: true })
  }
  return calls
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN
}
