import type { User } from '../sessions/auth.ts'
import { type DisconnectOptions, disconnectUser, userId } from './user-group.ts'

/** A request of Express, as far as signing out goes; the types of Passport and express-session fit. */
export interface SignedInRequest {
  readonly user?: unknown
  readonly session?: { destroy(callback: (error?: unknown) => void): unknown } | undefined
  logout?(callback: (error?: unknown) => void): unknown
}

/**
 * Signs a user out on an Express site and closes their sockets everywhere: by Passport's
 * `request.logout` where it is there, else by ending the session.
 *
 * @param user - who it is, where that is not `request.user`.
 */
export async function logOut(
  request: SignedInRequest,
  options: DisconnectOptions & { readonly user?: User } = {},
): Promise<void> {
  const user = options.user ?? (request.user as User | undefined)
  const id = user && userId(user)
  await new Promise<void>((resolve, reject) => {
    const done = (error?: unknown): void => {
      if (error) reject(error)
      else resolve()
    }
    if (request.logout) request.logout(done)
    else if (request.session) request.session.destroy(done)
    else done()
  })
  if (id !== undefined) await disconnectUser(id, options)
}
