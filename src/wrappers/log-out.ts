import { currentSite } from '../current-site.ts'
import type { User } from '../sessions/auth.ts'
import { userOf } from '../sessions/auth.ts'
import { makeSession } from '../sessions/session.ts'
import { type DisconnectOptions, disconnectUser, userId } from './user-group.ts'

/** A request of Express, as far as signing out goes; the types of Passport and express-session fit. */
export interface SignedInRequest {
  readonly user?: unknown
  readonly session?:
    | { readonly id?: string; destroy(callback: (error?: unknown) => void): unknown }
    | undefined
  logout?(callback: (error?: unknown) => void): unknown
}

/**
 * Signs a user out on an Express site and closes their sockets everywhere: by Passport's
 * `request.logout` where it is there, else by ending the session. Of an anonymous session there are
 * no sockets to close.
 *
 * @param options - `user` says who it is, where neither `request.user` nor `auth.user` of the
 *   request's session does.
 */
export async function logOut(
  request: SignedInRequest,
  options: DisconnectOptions & { readonly user?: User } = {},
): Promise<void> {
  // Before the session is gone; but what fails here does not keep them signed in.
  const [asked] = await Promise.allSettled([whoIs(request, options.user)])
  await new Promise<void>((resolve, reject) => {
    const done = (error?: unknown): void => {
      if (error) reject(error)
      else resolve()
    }
    if (request.logout) request.logout(done)
    else if (request.session) request.session.destroy(done)
    else done()
  })
  if (asked.status === 'rejected') throw asked.reason
  if (asked.value !== undefined) await disconnectUser(asked.value, options)
}

/** The id of who is signed in by a request. */
async function whoIs(
  { user, session }: SignedInRequest,
  given: User | undefined,
): Promise<string | undefined> {
  const known = given ?? (user as User | null | undefined)
  if (known) return userId(known)
  const { auth } = currentSite().sessions()
  if (!session || !auth || auth.sessions) return undefined
  const found = await userOf(
    auth,
    makeSession(session.id ?? '', JSON.parse(JSON.stringify(session))),
  )
  return found ? userId(found) : undefined
}
