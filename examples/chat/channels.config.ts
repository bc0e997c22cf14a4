import { defineConfig } from 'channelkit'
import { accountById } from './accounts.ts'
import { secret, store } from './sessions.ts'

export default defineConfig({
  channelBackends: {
    default: {
      // By default a SQLite file in .channelkit/; or what CHANNELS_URL says, like memory:
      backend: process.env.CHANNELS_URL,
      routing: './routing.ts#channelRouting',
    },
  },
  app: './app.ts#app',
  staticFiles: { '/static/': './public' },
  websocket: {
    // Pages that `channelkit runserver` serves may open sockets at `channelkit runwsserver` too.
    allowedOrigins: ['http://localhost:8000', 'http://127.0.0.1:8000'],
  },
  session: { store, secret },
  auth: {
    user: (session) => accountById(session.userId),
    // Whoever changes the password is to log in again, on all sockets.
    hash: (user) => user.passwordHash,
  },
})
