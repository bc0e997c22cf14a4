import {
  channelSession,
  channelSessionUser,
  Group,
  httpSessionUser,
  linearize,
  type Message,
  transferUser,
  type WithChannelSession,
  type WithChannelSessionUser,
  type WithHttpSessionUser,
} from 'channelkit'
import { accountByName } from './accounts.ts'
import { recentMessages, type SavedMessage, saveMessage } from './history.ts'
import { isPrivate, letterPath, roomOf } from './rooms.ts'

declare module 'channelkit' {
  interface SessionData {
    /** In the channel session: the group of the client's room. */
    room?: string
  }
}

/** What the page is told. */
type Frame =
  | { type: 'history'; messages: readonly SavedMessage[] }
  | { type: 'message'; message: SavedMessage }
  | { type: 'people'; count: number }
  | { type: 'refused'; key: string; reason: string }

type Connecting = Message<'websocket.connect'> & WithChannelSession & WithHttpSessionUser
type Receiving = Message<'websocket.receive'> & WithChannelSessionUser

// So many of the longest messages fit into one frame.
const messagesPerFrame = 50

/** Lets a client in, notes its room and its user, and tells it what was said. */
async function enter(message: Connecting): Promise<void> {
  const { content, channelSession: kept, httpSession: site, user } = message
  const room = roomOf(content.path, user)
  if (room === undefined) {
    const isForUsers = content.path === letterPath
    await message.replyChannel.send(
      isForUsers
        ? { close: 4401, reason: 'log in first' }
        : { close: 4404, reason: 'there is no such room' },
    )
    return
  }
  // Only the handshake has the site's cookie; what comes later is known by the channel session.
  transferUser(site, kept)
  kept.room = room.group
  // The group first, then the history: what is said between the two arrives twice, not never, and
  // the page knows it by its id.
  await Group(room.group).add(message.replyChannel)
  const after = Number(content.get.after?.[0]) || 0
  const messages = recentMessages(room.group, after)
  for (let start = 0; start === 0 || start < messages.length; start += messagesPerFrame) {
    const page = messages.slice(start, start + messagesPerFrame)
    await message.replyChannel.send(encode({ type: 'history', messages: page }))
  }
  await sendPeople(room.group)
}

/** Saves what a client says, and passes it on to everyone in the room. */
async function say(message: Receiving): Promise<void> {
  const { channelSession: kept, user } = message
  const { room } = kept
  const draft = readDraft(message.content.content)
  if (room === undefined || draft === undefined) return
  // Who has just logged out, and is about to be disconnected.
  if (user === null && isPrivate(room)) return
  // Users write under their own names, whatever the client says; guests under none of a user.
  const { key, nickname, text } = draft
  if (user === null && accountByName(plain(nickname))) {
    const reason = `“${nickname}” is the name of someone who has signed up. Choose another, or log in.`
    await message.replyChannel.send(encode({ type: 'refused', key, reason }))
    return
  }
  const author = user?.username ?? nickname
  const saved = saveMessage({ room, key, author, isUser: user !== null, text })
  await Group(room).send(encode({ type: 'message', message: saved }))
}

async function leave(message: Message & WithChannelSession): Promise<void> {
  const { room } = message.channelSession
  if (room === undefined) return
  await Group(room).discard(message.replyChannel)
  await sendPeople(room)
}

// Linearized, so that `enter` has saved the session before `say` and `leave` read it.
export const connect = linearize(channelSession(httpSessionUser(enter)))
export const receive = linearize(channelSessionUser(say))
export const disconnect = linearize(channelSession(leave))

async function sendPeople(room: string): Promise<void> {
  const { length: count } = await Group(room).channels()
  await Group(room).send(encode({ type: 'people', count }))
}

function encode(frame: Frame): { content: string } {
  return { content: JSON.stringify(frame) }
}

/** A name without what cannot be seen, so that no guest looks like a user by it. */
function plain(name: string): string {
  return name.normalize('NFKC').replace(/[\p{C}\p{Z}\p{M}]/gu, '')
}

/** Reads what a client sent; nothing of it can be trusted, so what is wrong is passed over. */
function readDraft(
  content: string | Uint8Array,
): { key: string; nickname: string; text: string } | undefined {
  let frame: unknown
  try {
    frame = JSON.parse(String(content))
  } catch {
    return undefined
  }
  if (typeof frame !== 'object' || frame === null) return undefined
  const { key, nickname, text } = frame as Record<string, unknown>
  if (!isText(key, 64) || !isText(nickname, 40) || !isText(text, 2000)) return undefined
  return { key, nickname: nickname.trim(), text: text.trim() }
}

function isText(value: unknown, longest: number): value is string {
  return typeof value === 'string' && value.trim() !== '' && value.length <= longest
}
