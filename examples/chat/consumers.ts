import { Group, type Message } from 'channelkit'
import { recentMessages, type SavedMessage, saveMessage } from './history.ts'
import { roomOf } from './rooms.ts'

/** What the page is told. */
type Frame =
  | { type: 'history'; messages: readonly SavedMessage[] }
  | { type: 'message'; message: SavedMessage }
  | { type: 'people'; count: number }

// So many of the longest messages fit into one frame.
const messagesPerFrame = 50

/** Lets a client in, and tells it what was said. */
export async function connect(message: Message<'websocket.connect'>): Promise<void> {
  const room = roomOf(message.content.path)
  if (room === undefined) {
    await message.replyChannel.send({ close: 4404, reason: 'there is no such room' })
    return
  }
  // The group first, then the history: what is said between the two arrives twice, not never, and
  // the page knows it by its id.
  await groupOf(room).add(message.replyChannel)
  const after = Number(message.content.get.after?.[0]) || 0
  const messages = recentMessages(room, after)
  for (let start = 0; start === 0 || start < messages.length; start += messagesPerFrame) {
    const page = messages.slice(start, start + messagesPerFrame)
    await message.replyChannel.send(encode({ type: 'history', messages: page }))
  }
  await sendPeople(room)
}

/** Saves what a client says, and passes it on to everyone in the room. */
export async function receive(message: Message<'websocket.receive'>): Promise<void> {
  const room = roomOf(message.content.path)
  const draft = readDraft(message.content.content)
  if (room === undefined || draft === undefined) return
  const saved = saveMessage({ ...draft, room })
  await groupOf(room).send(encode({ type: 'message', message: saved }))
}

export async function disconnect(message: Message<'websocket.disconnect'>): Promise<void> {
  const room = roomOf(message.content.path)
  if (room === undefined) return
  await groupOf(room).discard(message.replyChannel)
  await sendPeople(room)
}

async function sendPeople(room: string): Promise<void> {
  const { length: count } = await groupOf(room).channels()
  await groupOf(room).send(encode({ type: 'people', count }))
}

function groupOf(room: string): Group {
  return Group(`chat-${room}`)
}

function encode(frame: Frame): { content: string } {
  return { content: JSON.stringify(frame) }
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
