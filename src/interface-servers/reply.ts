import type { Content } from '../content.ts'

/**
 * One message for clients. A group message is one `Reply` for all of them, so what a client's kind
 * of connection makes of it (a frame) is made once and kept here.
 */
export class Reply {
  readonly content: Content
  /** Whether it goes to a group: then its frame is worth keeping. */
  readonly isShared: boolean
  /** The WebSocket frame of a shared reply, once made; null when it holds nothing to send. */
  frame: Buffer | null | undefined = undefined

  constructor(content: Content, isShared: boolean) {
    this.content = content
    this.isShared = isShared
  }
}

/** Who holds a reply channel: the connection of one client. */
export interface ReplyOwner {
  /** Takes one reply; called in the order in which they were sent. Never throws. */
  receive(reply: Reply): void
}
