import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import {
  channelSession,
  channelSessionUser,
  defineRouting,
  httpSessionUser,
  linearize,
  logOut,
  setup,
  transferUser,
  type User,
} from 'channelkit'
import { attach } from 'channelkit/server'
import { passportUser } from 'channelkit/sessions'
import express from 'express'
import session from 'express-session'
import { Passport } from 'passport'
import { Strategy } from 'passport-local'
import { openSocket } from './asking-socket.ts'

const secret = 'a secret of this test alone, 40 letters.'
const accounts = [
  { id: 'u1', username: 'ann', password: 'apple' },
  { id: 'u2', username: 'ben', password: 'banana' },
]

const nameOf = (user: User | null) => ({ content: user ? String(user.username) : 'nobody' })

/** Consumers that say who a socket is, on opening and whenever it asks. */
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
    channelSessionUser(async (message) => {
      const { channelSession: kept, user } = message
      kept.asked = Number(kept.asked ?? 0) + 1
      await message.replyChannel.send({ content: `${nameOf(user).content} ${kept.asked}` })
    }),
  ),
})

/** An Express site with Passport on a port of its own, whose sessions are in the given store. */
export async function startExpressSite(store: session.Store) {
  const passport = new Passport()
  passport.use(
    new Strategy((username, password, done) => {
      const account = accounts.find((each) => each.username === username)
      done(null, account?.password === password ? account : false)
    }),
  )
  passport.serializeUser((user, done) => done(null, (user as { id: string }).id))
  passport.deserializeUser((id, done) => {
    done(null, accounts.find((each) => each.id === id) ?? false)
  })
  const app = express()
  app.use(session({ store, secret, resave: false, saveUninitialized: false }))
  app.use(passport.initialize(), passport.session())
  app.use(express.urlencoded({ extended: false }))
  app.post('/login', passport.authenticate('local'), (_request, response) => {
    response.send('welcome')
  })
  app.post('/logout', async (request, response) => {
    await logOut(request)
    response.send('bye')
  })
  app.get('/who', (request, response) => {
    response.send(nameOf((request.user as User | undefined) ?? null).content)
  })
  const site = await setup({
    channelBackends: { default: { backend: 'memory:', routing: channelRouting } },
    session: { store, secret },
    auth: passportUser(passport),
  })
  const server = createServer(app)
  const servers = await attach(server, site, { worker: true })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  const origin = `http://127.0.0.1:${port}`
  return {
    /** Signs in over HTTP. @returns the session cookie that the site has set. */
    async logIn(username: string, password: string): Promise<string> {
      const body = new URLSearchParams({ username, password })
      const response = await fetch(`${origin}/login`, { method: 'POST', body })
      if (!response.ok) throw new Error(`signing in was answered by ${response.status}`)
      return response.headers.getSetCookie()[0]?.split(';')[0] ?? ''
    },
    async post(path: string, cookie: string): Promise<string> {
      return (await fetch(`${origin}${path}`, { method: 'POST', headers: { cookie } })).text()
    },
    async get(path: string, cookie: string): Promise<string> {
      return (await fetch(`${origin}${path}`, { headers: { cookie } })).text()
    },
    /** Opens a socket as a page of the site does. */
    open: (cookie: string) => openSocket(`ws://127.0.0.1:${port}/`, { origin, cookie }),
    async [Symbol.asyncDispose]() {
      await servers.close()
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
      await site.close()
    },
  }
}
