import type { OutgoingMessage } from '../../../src/backends/channel-backend.ts'
import type { Content } from '../../../src/content.ts'
import { Backend, type Fault, storesOf, turn } from './backend.ts'

class AssignsKeys extends Backend {
  override send(messages: readonly OutgoingMessage[]) {
    return super.send(
      messages.map((message) =>
        message.content && Object.getPrototypeOf(message.content) === Object.prototype
          ? { ...message, content: assignEach(message.content) }
          : message,
      ),
    )
  }
}

function assignEach(content: Content): Content {
  const copy: Record<string, Content[string]> = {}
  for (const [key, value] of Object.entries(content)) copy[key] = value
  return copy
}

class ReadsContentLater extends Backend {
  override async send(messages: readonly OutgoingMessage[]) {
    await turn()
    return super.send(messages)
  }
}

class StoresTooLarge extends Backend {
  override async send(messages: readonly OutgoingMessage[]) {
    const failures = await super.send(messages)
    for (const { index, error } of failures) {
      if (error.code !== 'ERR_CONTENT_TOO_LARGE') continue
      const { channel, content } = messages[index] as OutgoingMessage
      const expiresAt = this.limits.clock.now() + this.limits.expiryMs
      await super.handBack([{ id: this.store.nextId++, channel, content, expiresAt, attempts: 0 }])
    }
    return failures
  }
}

class BytesBecomeNumbers extends Backend {
  override send(messages: readonly OutgoingMessage[]) {
    return super.send(
      messages.map((message) => ({ ...message, content: bytesToNumbers(message.content) })),
    )
  }
}

function bytesToNumbers(content: Content): Content {
  if (typeof content !== 'object' || content === null) return content
  const entries = Object.entries(content).map(([key, value]) => [
    key,
    value instanceof Uint8Array ? [...value] : value,
  ])
  const plain = Object.getPrototypeOf(content) === Object.prototype
  return plain ? (Object.fromEntries(entries) as Content) : content
}

class DropsInvalidValues extends Backend {
  override send(messages: readonly OutgoingMessage[]) {
    return super.send(
      messages.map((message) => ({ ...message, content: withoutDates(message.content) })),
    )
  }
}

function withoutDates(content: Content): Content {
  if (typeof content !== 'object' || content === null) return content
  if (!Object.values(content).some((value: unknown) => value instanceof Date)) return content
  return {}
}

class TurnsUndefinedIntoNull extends Backend {
  override send(messages: readonly OutgoingMessage[]) {
    return super.send(
      messages.map((message) => ({ ...message, content: undefinedToNull(message.content) })),
    )
  }
}

function undefinedToNull(content: Content): Content {
  if (typeof content !== 'object' || content === null || !('left' in content)) return content
  return { ...content, left: null }
}

export const contentFaults: readonly Fault[] = [
  ['assigns keys one by one', 'C1 C16', storesOf(AssignsKeys)],
  ['reads content after the call has returned', 'C4', storesOf(ReadsContentLater)],
  ['stores what it rejects as too large', 'C12', storesOf(StoresTooLarge)],
  ['turns bytes into numbers', 'C4 C16 D9 A1', storesOf(BytesBecomeNumbers)],
  ['empties content with dates', 'C17', storesOf(DropsInvalidValues)],
  ['turns undefined into null', 'C21', storesOf(TurnsUndefinedIntoNull)],
]
