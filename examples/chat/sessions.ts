import { randomBytes } from 'node:crypto'
import { SqliteSessionStore, signCookie, verifyCookie } from 'channelkit/sessions'
import type { Context } from 'hono'
import { deleteCookie, getCookie, setCookie } from 'hono/cookie'
import { type Account, accountById } from './accounts.ts'
import { file } from './database.ts'

const cookieName = 'connect.sid'
const lifeMs = 7 * 86_400_000

// In production Channelkit insists on 32 characters or more, so the one below cannot stay there.
export const secret = process.env.SESSION_SECRET ?? 'only for development'
export const store = new SqliteSessionStore({ file })

/** The key of a request's session, if its cookie is one that we signed. */
export function sessionKey(context: Context): string | undefined {
  const cookie = getCookie(context, cookieName)
  return cookie === undefined ? undefined : verifyCookie(cookie, [secret])
}

/** Who a request is from; null for a guest. */
export async function userOf(context: Context): Promise<Account | null> {
  const key = sessionKey(context)
  if (key === undefined) return null
  const session = await new Promise<{ readonly userId?: unknown } | null | undefined>(
    (resolve, reject) => {
      store.get<{ readonly userId?: unknown }>(key, (error, found) => {
        if (error) reject(error)
        else resolve(found)
      })
    },
  )
  return accountById(session?.userId) ?? null
}

/** Signs a user in, under a key that is new: nobody knows it who knew the one before. */
export async function startSession(context: Context, user: Account): Promise<void> {
  await endSession(context)
  const key = randomBytes(24).toString('base64url')
  const expires = new Date(Date.now() + lifeMs)
  await store.update(key, () => ({ cookie: { expires, originalMaxAge: lifeMs }, userId: user.id }))
  setCookie(context, cookieName, signCookie(key, [secret]), {
    path: '/',
    expires,
    // No script reads it, and no other site's form or socket sends it along.
    httpOnly: true,
    sameSite: 'Lax',
    secure: new URL(context.req.url).protocol === 'https:',
  })
}

export async function endSession(context: Context): Promise<void> {
  const key = sessionKey(context)
  deleteCookie(context, cookieName, { path: '/' })
  if (key === undefined) return
  await new Promise<void>((resolve, reject) => {
    store.destroy(key, (error) => {
      if (error) reject(error)
      else resolve()
    })
  })
}
