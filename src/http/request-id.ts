import { createHash } from 'node:crypto'

/**
 * Names a request in logs and error pages: ten characters that follow from its reply channel, in
 * every process alike, and from which nobody can find the channel.
 */
export function requestId(replyChannel: string): string {
  return createHash('sha256').update(replyChannel).digest('base64url').slice(0, 10)
}
