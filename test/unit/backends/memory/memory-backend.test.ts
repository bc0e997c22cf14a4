import type { OutgoingMessage, SendFailure } from 'channelkit/backend'
import { MemoryBackend } from 'channelkit/memory'
import { FakeClock } from 'channelkit/testing'
import { describe, expect, it } from 'vitest'

const text = 'x'.repeat(500)

/** `count` messages of a little more than 1,000 bytes in memory. */
function large(channel: string, count: number): OutgoingMessage[] {
  return Array.from({ length: count }, () => ({ channel, content: { text } }))
}

function codes(failures: readonly SendFailure[]): string[] {
  return failures.map(({ index, error }) => `${index}:${error.code}`)
}

describe('MemoryBackend', () => {
  it('refuses what would take a channel beyond its bytes, and takes it when there is room', async () => {
    const backend = new MemoryBackend({ capacityBytes: 3_500 })

    const failures = await backend.send([...large('news', 4), ...large('other', 1)])

    expect(codes(failures)).toEqual(['3:ERR_CHANNEL_FULL'])
    expect(failures[0]?.error.message).toContain('3500 bytes; start more workers')
    expect(backend.counters.get('dropped.full')).toBe(1)
    await backend.receive(['news'], { max: 1, waitMs: 0 })
    expect(await backend.send(large('news', 1))).toEqual([])
  })

  it('refuses what would take an inbox beyond its bytes, and its changes of membership never', async () => {
    const backend = new MemoryBackend({ capacityBytes: 2_500 })
    const inbox = await backend.openInbox<string>()
    const channel = inbox.newChannel('ada')
    await backend.groupAdd([{ group: 'chat', channel }])

    expect(codes(await backend.send(large(channel, 3)))).toEqual(['2:ERR_CHANNEL_FULL'])
    await backend.groupSend([{ group: 'chat', content: { text } }])
    await backend.groupDiscard([{ group: 'chat', channel }])

    expect(await inbox.receive({ max: 10, waitMs: 0 })).toHaveLength(2)
    expect(inbox.membershipCount).toBe(0)
    expect(await backend.send(large(channel, 1))).toEqual([])
  })

  it('takes a message larger than the bytes of a channel while that is empty', async () => {
    const backend = new MemoryBackend({ capacityBytes: 10 })

    expect(codes(await backend.send(large('news', 2)))).toEqual(['1:ERR_CHANNEL_FULL'])
  })

  it('makes room for bytes by dropping what has expired, wherever it lies', async () => {
    const clock = new FakeClock()
    const backend = new MemoryBackend({ clock, capacityBytes: 2_500 })
    const [first, second] = large('news', 2)
    if (first) await backend.send([first])
    if (second) await backend.send([{ ...second, expiresAt: clock.now() + 10 }])
    await clock.advance(10)

    expect(await backend.send(large('news', 1))).toEqual([])
    expect(backend.counters.get('dropped.expired')).toBe(1)
  })

  it('gives its receivers nothing of its own accounts', async () => {
    const backend = new MemoryBackend()
    await backend.send(large('news', 1))

    const [message] = await backend.receive(['news'], { max: 1, waitMs: 0 })

    expect(Object.keys(message ?? {})).toEqual([
      ...['id', 'channel', 'content', 'expiresAt', 'attempts'],
    ])
  })

  it('rejects a capacityBytes that is no whole number from 1', () => {
    expect(() => new MemoryBackend({ capacityBytes: 0 })).toThrow(/capacityBytes is 0/)
  })
})
