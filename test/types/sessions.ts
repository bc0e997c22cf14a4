import {
  Channel,
  type ChannelSession,
  type Consumer,
  channelSession,
  channelSessionUser,
  defineRouting,
  holdSends,
  httpSession,
  httpSessionUser,
  linearize,
  type Message,
  type Session,
  type SessionWithUser,
  sessionKeys,
  transferUser,
  type User,
  type WithChannelSession,
  type WithHttpSession,
  type WithHttpSessionUser,
  type WithUser,
} from 'channelkit'
import { SqliteSessionStore } from 'channelkit/sessions'
import session, { MemoryStore } from 'express-session'
import type { SessionStore } from '../../src/sessions/session-store.ts'
import { type Equal, holds } from './equal.ts'

// Written inline, in any order, inside of a routing that says which channel it is.
export const inline = defineRouting({
  'websocket.connect': linearize(
    channelSession(
      httpSessionUser(async (message) => {
        holds<Equal<typeof message.httpSession, SessionWithUser | null>>()
        holds<Equal<typeof message.channelSession, ChannelSession>>()
        holds<Equal<typeof message.user, User | null>>()
        holds<Equal<typeof message.content.path, string>>()
        transferUser(message.httpSession, message.channelSession)
      }),
    ),
  ),
  'websocket.receive': httpSession(
    channelSessionUser(
      linearize((message) => {
        holds<Equal<typeof message.httpSession, Session | null>>()
        holds<Equal<typeof message.user, User | null>>()
        holds<Equal<typeof message.content.content, string | Uint8Array>>()
      }),
    ),
  ),
})

// Written apart, for a routing or for another wrapper.
async function connect(
  message: Message<'websocket.connect'> & WithChannelSession & WithHttpSession & WithUser,
): Promise<void> {
  message.channelSession.room = message.content.path
}
const wrapped = channelSession(httpSessionUser(connect))
holds<Equal<typeof wrapped, Consumer<Message<'websocket.connect'>>>>()
const otherWay = httpSessionUser(channelSession(connect))
holds<Equal<typeof otherWay, Consumer<Message<'websocket.connect'>>>>()
export const apart = defineRouting({ 'websocket.connect': wrapped })

export const alone = channelSession(async (message) => {
  holds<Equal<typeof message.channelSession, ChannelSession>>()
  await message.replyChannel.send({ content: String(message.channelSession.room) })
})

// Written inline, with no routing around it.
export const exported = linearize(
  channelSession(
    httpSessionUser(async (message) => {
      holds<Equal<typeof message.httpSession, SessionWithUser | null>>()
      holds<Equal<typeof message.channelSession, ChannelSession>>()
      holds<Equal<typeof message.user, User | null>>()
      await message.replyChannel.send({ content: message.channel })
    }),
  ),
)
holds<Equal<typeof exported, Consumer>>()
export const otherOrder = httpSession(
  channelSessionUser(
    holdSends((message) => transferUser(message.channelSession, message.channelSession)),
  ),
)
export const typed = channelSession(
  httpSession((message: Message<'websocket.connect'> & WithChannelSession & WithHttpSession) => {
    holds<Equal<typeof message.content.path, string>>()
  }),
)
holds<Equal<typeof typed, Consumer<Message<'websocket.connect'>>>>()

// @ts-expect-error: without a wrapper there is no session
export const unwrapped: Consumer = (message) => message.channelSession

// @ts-expect-error: httpSession adds no user
httpSession((message) => message.user)

channelSessionUser((message) => {
  // @ts-expect-error: nobody may be signed in
  message.user.name
})

httpSession((message) => {
  // @ts-expect-error: there may be no session
  message.httpSession.visits = 1
})

httpSessionUser(
  channelSession((message: Message & WithChannelSession & WithHttpSessionUser) => {
    transferUser(message.httpSession, message.channelSession)
    // @ts-expect-error: a user goes from the site's session into the channel's
    transferUser(message.channelSession, message.httpSession)
    // @ts-expect-error: an object of one's own is no session
    transferUser({ id: 'key' }, message.channelSession)
  }),
)

channelSession(
  // @ts-expect-error: httpSession does not know the user of its session
  httpSession((message) => transferUser(message.httpSession, message.channelSession)),
)

channelSession((message) => Channel('orders').send({ ...sessionKeys(message) }))
httpSession((message) => Channel('orders').send({ ...sessionKeys(message) }))
// @ts-expect-error: a message without sessions has no keys of them
export const keyless: Consumer = (message) => Channel('orders').send({ ...sessionKeys(message) })

interface Cart {
  items: { name: string; price?: number }[]
}

channelSession(({ channelSession: kept }) => {
  const cart: Cart = { items: [{ name: 'tea' }] }
  kept.cart = cart
  kept.inline = { items: ['tea', { price: 2 }], at: null }
  kept.count = Number(kept.count ?? 0) + 1
  kept.gone = undefined
  delete kept.cart
  // @ts-expect-error: JSON has no such number
  kept.big = 10n
  // @ts-expect-error: JSON would make it {}
  kept.map = new Map()
  // @ts-expect-error: JSON would make it text
  kept.date = new Date()
  // @ts-expect-error: JSON leaves it out
  kept.call = () => 1
  // @ts-expect-error: JSON makes an object of it
  kept.bytes = new Uint8Array()
  // @ts-expect-error: it is the store's own
  kept.cookie = 'mine'
})

// @ts-expect-error: the routing does not give it the session that it needs
export const forgotten = defineRouting({ 'websocket.connect': connect })

// @ts-expect-error: channelSession is missing around it
export const half = defineRouting({ 'websocket.connect': httpSessionUser(connect) })

// Both ways round: our store for express-session, its stores for us.
export const middleware = session({
  secret: 'secret',
  store: new SqliteSessionStore({ file: 'sessions.sqlite' }),
})
export const store: SessionStore = new MemoryStore()
