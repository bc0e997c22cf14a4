import {
  type Consumer,
  type ConsumerWrapper,
  defineConfig,
  defineRouting,
  holdSends,
  type Message,
} from 'channelkit'
import { type Equal, holds } from './equal.ts'

function onReceive(_message: Message<'websocket.receive'>): void {}
function onConnect(_message: Message<'websocket.connect'>): void {}
function onAny(_message: Message): void {}

// A consumer fits the channel whose content it takes, or any channel when it takes any content.
defineRouting({ 'websocket.receive': onReceive, 'websocket.connect': onConnect })
defineRouting({ 'websocket.receive': onAny, jobs: onAny, 'chat-messages': onAny })
defineRouting({ 'websocket.receive': './consumers.ts#receive' })
// @ts-expect-error: a receive has no path to a handshake's headers.
defineRouting({ 'websocket.receive': onConnect })
defineRouting({
  // @ts-expect-error: a chat message is no frame of a client.
  'chat-messages': onReceive,
})
// @ts-expect-error: a reference has a file and a name.
defineRouting({ jobs: './consumers.ts' })
// @ts-expect-error: a consumer takes one message.
defineRouting({ jobs: (_message: Message, _more: string) => {} })

// A consumer written in place knows its message.
defineRouting({
  'websocket.connect': async ({ content, replyChannel }) => {
    holds<Equal<typeof content.subprotocols, readonly string[]>>()
    await replyChannel.send({ accept: true, subprotocol: content.subprotocols[0] ?? 'chat' })
  },
  'chat-messages': ({ content }) => {
    holds<Equal<typeof content, { room: string; message: string }>>()
  },
})

// Replies are what the client's kind of connection can take.
defineRouting({
  'websocket.receive': async ({ replyChannel }) => {
    await replyChannel.send({ content: new Uint8Array(1), close: 4_000, reason: 'enough' })
    // @ts-expect-error: a socket has no status.
    await replyChannel.send({ status: 200 })
    // @ts-expect-error: it sends text or bytes.
    await replyChannel.send({ content: { n: 1 } })
  },
  'http.request': async ({ replyChannel }) => {
    await replyChannel.send({ status: 200, headers: [['x-mark', 'one']], content: 'hi' })
    // @ts-expect-error: a response is not closed with a code.
    await replyChannel.send({ close: 1000 })
    // @ts-expect-error: headers are pairs.
    await replyChannel.send({ headers: { 'x-mark': 'one' } })
  },
})

// A message's own type says what is there.
type Plain = Message
// @ts-expect-error: no wrapper has added a user.
type NoUser = Plain['user']

// Wrappers add to the message of the consumer inside, and ask nothing of the one outside.
declare const withUser: ConsumerWrapper<{ readonly user: { readonly name: string } }>
const greet = withUser(
  async (message: Message<'websocket.receive'> & { readonly user: { readonly name: string } }) => {
    await message.replyChannel.send({ content: message.user.name })
  },
)
defineRouting({ 'websocket.receive': greet })
holds<Equal<ReturnType<typeof holdSends<Message>>, Consumer<Message>>>()
defineRouting({ 'websocket.receive': holdSends(onReceive) })
// @ts-expect-error: holding sends changes no type.
defineRouting({ 'websocket.receive': holdSends(onConnect) })

// A config takes what defineRouting makes, or where it is.
defineConfig({ channelBackends: { default: { routing: defineRouting({}) } } })
defineConfig({ channelBackends: { default: { routing: './routing.ts#channelRouting' } } })
// @ts-expect-error: a bare table is no routing.
defineConfig({ channelBackends: { default: { routing: { jobs: onAny } } } })
// @ts-expect-error: there is no such setting.
defineConfig({ websocket: { allowOrigins: ['*'] } })

export type { NoUser }
