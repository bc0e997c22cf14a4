import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import {
  channelSession,
  channelSessionUser,
  defineRouting,
  httpSessionUser,
  issueTicket,
  linearize,
  setup,
  transferUser,
  type User,
} from 'channelkit'
import { attach } from 'channelkit/server'
import type { AuthConfig, SessionConfig, SqliteSessionStore } from 'channelkit/sessions'
import { openSocket } from './asking-socket.ts'

const nameOf = (user: User | null) => ({ content: user ? String(user.name) : 'nobody' })

/** Consumers that say who a socket is: first by the site's session, then by the channel's. */
const channelRouting = defineRouting({
  'websocket.connect': linearize(
    channelSession(
      httpSessionUser(async (message) => {
        transferUser(message.httpSession, message.channelSession)
        await message.replyChannel.send(nameOf(message.user))
      }),
    ),
  ),
  'websocket.receive': linearize(
    channelSessionUser((message) => message.replyChannel.send(nameOf(message.user))),
  ),
})

/** Someone who signs up on a {@link startBetterAuthSite}. */
export interface Person {
  readonly name: string
  readonly email: string
  readonly password: string
}

/**
 * A site on a port of its own whose pages and sockets both go through Channelkit, and whose users
 * are Better Auth's.
 */
export async function startBetterAuthSite(options: {
  readonly app: { fetch(request: Request): Response | Promise<Response> }
  readonly auth: AuthConfig
  readonly store: SqliteSessionStore
  readonly secret: SessionConfig['secret']
}) {
  const { app, auth, store, secret } = options
  const site = await setup({
    channelBackends: { default: { backend: 'memory:', routing: channelRouting } },
    session: { store, secret },
    auth,
    app,
  })
  const server = createServer()
  const servers = await attach(server, site, { worker: true, http: true })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  const origin = `http://127.0.0.1:${port}`
  const post = async (path: string, body: object, cookie = ''): Promise<Response> => {
    const headers = { origin, cookie, 'content-type': 'application/json' }
    const response = await fetch(`${origin}/api/auth/${path}`, {
      method: 'POST',
      headers,
      body: JSON.stringify(body),
    })
    if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`)
    return response
  }
  return {
    /** Signs somebody up over HTTP. @returns the cookie the site has set. */
    signUp: async (person: Person) => cookieOf(await post('sign-up/email', person)),
    /** Signs somebody in over HTTP. @returns the cookie the site has set. */
    async signIn({ email, password }: Person) {
      return cookieOf(await post('sign-in/email', { email, password }))
    },
    signOut: (cookie: string) => post('sign-out', {}, cookie),
    async changePassword(cookie: string, { password }: Person, newPassword: string) {
      const body = { currentPassword: password, newPassword }
      return cookieOf(await post('change-password', body, cookie))
    },
    /** Whom the site's pages take the cookie for. */
    async who(cookie: string): Promise<string> {
      const response = await fetch(`${origin}/api/auth/get-session`, { headers: { cookie } })
      const found = (await response.json()) as { user: { name: string } } | null
      return found?.user.name ?? 'nobody'
    },
    open: (cookie: string) => openSocket(`ws://127.0.0.1:${port}/`, { origin, cookie }),
    /** Opens one that has a ticket of the page of that cookie instead of the cookie. */
    async openByTicket(cookie: string) {
      const headers = new Headers({ cookie, host: `127.0.0.1:${port}` })
      const ticket = await issueTicket({ headers }, { origin })
      return openSocket(`ws://127.0.0.1:${port}/?ticket=${ticket}`, { origin, cookie: '' })
    },
    async [Symbol.asyncDispose]() {
      await servers.close()
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
      await site.close()
    },
  }
}

function cookieOf(response: Response): string {
  const cookies = response.headers.getSetCookie().map((cookie) => cookie.split(';')[0] ?? '')
  return cookies.find((cookie) => cookie.includes('session_token=')) ?? ''
}
