import type { Content } from 'channelkit'
import { describe, expect, it } from 'vitest'
import * as ws from 'ws'
import { encodeReplies, encodeReplyFrame } from '../../../src/interface-servers/frame.ts'
import { Reply } from '../../../src/interface-servers/reply.ts'

type Received = [content: string | Uint8Array, isBinary: boolean]

/** The library's own reader of frames, whose types it keeps to itself. */
const { Receiver } = ws as unknown as {
  Receiver: new (options: { isServer: boolean }) => NodeJS.WritableStream
}

/** What a client of the library reads out of `frames`. */
async function readByClient(frames: readonly Buffer[]): Promise<Received[]> {
  const receiver = new Receiver({ isServer: false })
  const received: Received[] = []
  receiver.on('message', (data: Buffer, isBinary: boolean) => {
    received.push([isBinary ? new Uint8Array(data) : data.toString(), isBinary])
  })
  receiver.on('error', (error) => {
    throw error
  })
  for (const frame of frames) receiver.write(frame)
  await new Promise<void>((resolve) => receiver.end(() => resolve()))
  return received
}

const lengths = [0, 1, 125, 126, 127, 65_535, 65_536, 65_537, 200_000]

describe('encodeReplyFrame', () => {
  it.each(lengths)(
    'encodes text of %i bytes as a client of the library reads it',
    async (length) => {
      const content = 'x'.repeat(length)

      const frame = encodeReplyFrame({ content })

      expect(frame && (await readByClient([frame]))).toEqual([[content, false]])
    },
  )

  it.each(lengths)('encodes %i bytes as a client of the library reads them', async (length) => {
    const content = Uint8Array.from({ length }, (_, index) => index % 256)

    const frame = encodeReplyFrame({ content })

    expect(frame && (await readByClient([frame]))).toEqual([[content, true]])
  })

  it('counts bytes, not characters', async () => {
    const content = 'é€🍳'.repeat(20)

    const frame = encodeReplyFrame({ content })

    expect(frame?.length).toBe(4 + Buffer.byteLength(content))
    expect(frame && (await readByClient([frame]))).toEqual([[content, false]])
  })

  it('writes the shortest head, RFC 6455 section 5.2', () => {
    const headOf = (length: number, bytes: number) =>
      [...(encodeReplyFrame({ content: 'x'.repeat(length) }) ?? [])].slice(0, bytes)

    const sizeOf = (length: number) => encodeReplyFrame({ content: 'x'.repeat(length) })?.length

    expect([125, 126, 65_535, 65_536].map(sizeOf)).toEqual([127, 130, 65_539, 65_546])
    expect(headOf(125, 2)).toEqual([0x81, 125])
    expect(headOf(126, 4)).toEqual([0x81, 126, 0, 126])
    expect(headOf(65_535, 4)).toEqual([0x81, 126, 255, 255])
    expect(headOf(65_536, 10)).toEqual([0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0])
  })

  it.each<[Content, Received]>([
    [{ content: 'text', binary: true }, [new TextEncoder().encode('text'), true]],
    [{ content: 'text', binary: false }, ['text', false]],
    [{ content: new TextEncoder().encode('text'), binary: false }, ['text', false]],
    [{ content: new Uint8Array([255]), binary: true }, [new Uint8Array([255]), true]],
  ])('sends %j as its binary says', async (content, received) => {
    const frame = encodeReplyFrame(content)

    expect(frame && (await readByClient([frame]))).toEqual([received])
  })

  it.each<[Content]>([[{}], [{ content: undefined }], [{ content: null }], [{ close: true }]])(
    'gives nothing for %j',
    (content) => {
      expect(encodeReplyFrame(content)).toBe(null)
    },
  )

  it.each<[string, Content]>([
    ['a number', { content: 7 }],
    ['a boolean', { content: true }],
    ['an object', { content: { text: 'x' } }],
    ['an array', { content: ['x'] }],
  ])('refuses %s', (kind, content) => {
    expect(() => encodeReplyFrame(content)).toThrow(
      `the content of a reply to a socket is ${kind === 'an array' ? kind : kind.replace('an ', 'a ')}; send a string or bytes`,
    )
  })
})

describe('encodeReplies', () => {
  const own = (content: string | Uint8Array) => new Reply({ content }, false)
  const shared = (content: string) => {
    const reply = new Reply({ content }, true)
    reply.frame = encodeReplyFrame(reply.content)
    return reply
  }

  it('joins small replies into one buffer, in order', async () => {
    const frames = encodeReplies([own('one'), shared('two'), own(new Uint8Array([3])), own('')])

    expect(frames).toHaveLength(1)
    expect(await readByClient(frames)).toEqual([
      ['one', false],
      ['two', false],
      [new Uint8Array([3]), true],
      ['', false],
    ])
  })

  it('keeps large ones apart, in order', async () => {
    const large = 'x'.repeat(65_536)

    const frames = encodeReplies([own('one'), shared(large), own(large)])

    expect(frames).toHaveLength(3)
    expect(await readByClient(frames)).toEqual([
      ['one', false],
      [large, false],
      [large, false],
    ])
  })

  it('takes the frame of a shared reply as it is', () => {
    const reply = shared('two')

    expect(encodeReplies([reply])).toEqual([reply.frame])
    expect(encodeReplies([reply])[0]).toBe(reply.frame)
  })
})
