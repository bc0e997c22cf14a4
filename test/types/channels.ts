import { Channel, content, defineChannels, type Message } from 'channelkit'
import { z } from 'zod'
import { type Equal, holds } from './equal.ts'

const channels = defineChannels({
  'chat-messages': content<{ room: string; message: string }>(),
  'typed-orders': { schema: z.object({ id: z.number() }) },
})

declare module 'channelkit' {
  interface Register {
    channels: typeof channels
  }
}

// A declaration gives Channel and Message the same content.
holds<Equal<Message<'chat-messages'>['content'], { room: string; message: string }>>()
holds<Equal<Message<'typed-orders'>['content'], { id: number }>>()
void Channel('chat-messages').send({ room: 'kitchen', message: 'hello' })
void Channel('typed-orders').send({ id: 7 })
// @ts-expect-error: the room is missing.
void Channel('chat-messages').send({ message: 'hello' })
// @ts-expect-error: an id is a number.
void Channel('typed-orders').send({ id: '7' })
// @ts-expect-error: no such key.
void Channel('chat-messages').send({ room: 'kitchen', message: 'hello', massage: '' })

// Built-in channels have theirs.
holds<Equal<Message<'websocket.disconnect'>['content']['code'], number>>()
holds<Equal<Message<'http.request'>['content']['body'], Uint8Array | undefined>>()
// @ts-expect-error: a disconnect has no headers.
type NoHeaders = Message<'websocket.disconnect'>['content']['headers']

// Any other channel takes any content, and a name known only at run time too.
void Channel('anything').send({ n: 1, bytes: new Uint8Array(1), list: [null, { deep: true }] })
void Channel('anything' as string).send({ n: 1 })
// @ts-expect-error: a Date cannot travel.
void Channel('anything').send({ at: new Date() })
// @ts-expect-error: content is an object.
void Channel('anything').send('text')
// @ts-expect-error: nor can a function.
void Channel('anything').send({ run: () => {} })

// @ts-expect-error: a schema's output is an object.
defineChannels({ texts: { schema: z.string() } })

export type { NoHeaders }
