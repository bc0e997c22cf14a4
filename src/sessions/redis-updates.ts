import { systemClock } from '../internal/clock.ts'
import { updateOf } from './compare-and-set.ts'
import type { SessionStore, StoredSession } from './session-store.ts'

/** What is used of connect-redis 8 and 9, with a client of node-redis. */
export interface RedisStoreLike extends SessionStore {
  readonly prefix: string
  readonly ttl: number | ((session: never) => number)
  readonly disableTTL: boolean
  readonly serializer: {
    parse(text: string): object | Promise<object>
    stringify(session: never): string
  }
  readonly client: {
    get(key: never): Promise<unknown>
    eval(
      script: never,
      options: { keys: string[]; arguments: string[] } & Record<never, never>,
    ): Promise<unknown>
  }
}

// Which of two writers was first is Redis' to say: a script runs alone.
const script = `
local found = redis.call('GET', KEYS[1])
if found == false then found = '' end
if found ~= ARGV[1] then return 0 end
if tonumber(ARGV[3]) == 0 then redis.call('SET', KEYS[1], ARGV[2])
elseif tonumber(ARGV[3]) < 0 then redis.call('DEL', KEYS[1])
else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
return 1`

/**
 * Gives a store of connect-redis the `update` that it lacks, so that no write is lost and what has
 * ended stays ended: `session: { store: withRedisUpdates(new RedisStore({ client })), … }`.
 *
 * @returns the store itself.
 */
export function withRedisUpdates<S extends RedisStoreLike>(
  store: S,
): S & Required<Pick<SessionStore, 'update'>> {
  const { client, serializer } = store
  const update = updateOf({
    async find(sid) {
      const text = await client.get((store.prefix + sid) as never)
      if (typeof text !== 'string' || text === '') return undefined
      return { text, session: (await serializer.parse(text)) as StoredSession }
    },
    async replace(sid, found, session) {
      const replaced = await client.eval(script as never, {
        keys: [store.prefix + sid],
        arguments: [
          found?.text ?? '',
          serializer.stringify(session as never),
          String(lifetimeMs(store, session)),
        ],
      })
      return Number(replaced) === 1
    },
  })
  return Object.assign(store, { update })
}

/** As the store itself reckons; 0 for without end, less than 0 for what has expired. */
function lifetimeMs({ disableTTL, ttl }: RedisStoreLike, session: StoredSession): number {
  if (disableTTL) return 0
  if (typeof ttl === 'function') return Math.ceil(ttl(session as never) * 1_000) || -1
  const expires = session.cookie?.expires
  if (!expires) return Math.ceil(ttl * 1_000)
  return Math.ceil(new Date(expires).getTime() - systemClock.now()) || -1
}
