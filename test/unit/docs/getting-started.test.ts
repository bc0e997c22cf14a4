import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { Group } from 'channelkit'
import { TestSite, type TestSocket } from 'channelkit/testing'
import { beforeAll, describe, expect, it } from 'vitest'
import { type CodeBlock, codeBlocks, writeBlocks } from '../../support/code-blocks.ts'

const page = 'docs/getting-started.md'
let blocks: CodeBlock[] = []

beforeAll(async () => {
  blocks = await codeBlocks(page)
})

/** The files as a reader has them who has followed the page up to the end of `heading`. */
async function filesAfter(heading: string) {
  const headings = [...new Set(blocks.map((block) => block.heading))]
  const done = new Set(headings.slice(0, headings.indexOf(heading) + 1))
  return writeBlocks(blocks.filter((block) => done.has(block.heading)))
}

async function siteAfter(heading: string) {
  const files = await filesAfter(heading)
  const site = await TestSite.open(join(files.folder, 'channels.config.ts'))
  return {
    site,
    async [Symbol.asyncDispose]() {
      await site.close()
      await files[Symbol.asyncDispose]()
    },
  }
}

describe(page, () => {
  it('has code under each of the headings that are run here', () => {
    expect([...new Set(blocks.map(({ heading }) => heading))]).toEqual([
      'First consumer',
      'First WebSocket consumer',
      'Keepalive',
      'Chat',
      'Try it from the browser',
      'Run it in several processes',
    ])
  })

  it('answers HTTP after "First consumer"', async () => {
    await using opened = await siteAfter('First consumer')

    const response = await opened.site.request('/kitchen')

    expect(await response.text()).toBe('Hello world! You asked for /kitchen')
  })

  it('reaches a socket through the group after "First WebSocket consumer"', async () => {
    await using opened = await siteAfter('First WebSocket consumer')
    const socket = await opened.site.connect('/')

    await Group('chat').send({ content: 'hi' })

    expect(await socket.next()).toBe('hi')
  })

  it('keeps an open socket in the group after "Keepalive"', async () => {
    await using opened = await siteAfter('Keepalive')
    const socket = await opened.site.connect('/')

    await opened.site.advance(600_000)
    await Group('chat').send({ content: 'hi' })

    expect(await socket.next()).toBe('hi')
  })

  it('tells everyone what one says after "Chat"', async () => {
    await using opened = await siteAfter('Chat')
    const [ann, ben] = [await opened.site.connect('/'), await opened.site.connect('/')]

    ann.send('hello')
    ann.send(new Uint8Array([1, 2]))
    expect(await ben.next()).toBe('hello')
    expect(await ben.next()).toEqual(new Uint8Array([1, 2]))
    expect(await ann.next()).toBe('hello')
    await ben.close()

    expect(await Group('chat').channels()).toHaveLength(1)
  })

  it('alerts what the browser console sends', async () => {
    await using opened = await siteAfter('Chat')
    const { site } = opened
    const script = blocks.find(({ caption }) => caption === 'browser console')?.code ?? ''
    const alerts: string[] = []
    const sockets: TestSocket[] = []
    class BrowserSocket {
      onopen = (): void => {}
      onmessage = (_event: { data: unknown }): void => {}
      readonly opened: Promise<void>
      #socket: TestSocket | undefined

      constructor(url: string) {
        const origin = 'http://localhost:8000'
        this.opened = site.connect(url, { headers: { origin } }).then(async (socket) => {
          this.#socket = socket
          sockets.push(socket)
          this.onopen()
          this.onmessage({ data: await socket.next() })
        })
      }

      send(content: string): void {
        this.#socket?.send(content)
      }
    }

    const run = new Function('WebSocket', 'alert', `let socket\n${script}\nreturn socket`)
    await run(BrowserSocket, (text: string) => alerts.push(text)).opened

    expect(alerts).toEqual(['hello world'])
    expect(sockets).toHaveLength(1)
  })

  it('attaches to a server, on SQLite, after "Run it in several processes"', async () => {
    await using files = await filesAfter('Run it in several processes')
    const before = process.cwd()
    process.chdir(files.folder)
    try {
      const { channels } = await import(pathToFileURL(join(files.folder, 'server.ts')).href)

      expect(channels.channels).toContain('websocket.receive')
      await channels.close()
    } finally {
      process.chdir(before)
    }
  })
})
