import { symlink } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { Channel, Group } from 'channelkit'
import { TestSite, type TestSocket } from 'channelkit/testing'
import { beforeAll, describe, expect, it } from 'vitest'
import { type CodeBlock, codeBlocks, writeBlocks } from '../../support/code-blocks.ts'

const page = 'docs/getting-started.md'
const modules = new URL('../../../node_modules', import.meta.url)
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

/** A site whose files name others beside them, and packages that a reader has installed. */
async function siteInFolderAfter(heading: string) {
  const files = await filesAfter(heading)
  await symlink(fileURLToPath(modules), join(files.folder, 'node_modules'))
  const before = process.cwd()
  process.chdir(files.folder)
  const site = await TestSite.open(join(files.folder, 'channels.config.ts'))
  return {
    site,
    load: (file: string) => import(pathToFileURL(join(files.folder, file)).href),
    async logIn(username: string, password: string) {
      const response = await site.request(
        new Request('http://localhost/login', {
          method: 'POST',
          body: new URLSearchParams({ username, password }),
        }),
      )
      const [cookie = ''] = response.headers.getSetCookie()
      return { status: response.status, headers: { cookie: cookie.split(';')[0] ?? '' } }
    },
    async [Symbol.asyncDispose]() {
      process.chdir(before)
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
      'Persisting data',
      'Authentication',
      'Models',
      'Linearization',
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

  it('keeps rooms apart after "Persisting data"', async () => {
    await using opened = await siteInFolderAfter('Persisting data')
    const { site } = opened
    const [ann, ben] = [await site.connect('/kitchen/'), await site.connect('/kitchen')]
    const eve = await site.connect('/garden')

    ann.send('hello')

    expect([await ann.next(), await ben.next()]).toEqual(['hello', 'hello'])
    await eve.expectNothing()
    await ben.close()
    await site.drain()
    expect(await Group('chat-kitchen').channels()).toHaveLength(1)
  })

  it.each(['Authentication', 'Linearization'])(
    'knows who is signed in after "%s"',
    async (heading) => {
      await using opened = await siteInFolderAfter(heading)
      const { site } = opened
      const ann = await site.connect('/', await opened.logIn('ann', 'apple'))
      const amy = await site.connect('/', await opened.logIn('amy', 'almond'))
      const ben = await site.connect('/', await opened.logIn('ben', 'banana'))

      const stranger = await site.connect('/', await opened.logIn('ben', 'guessed'))
      ann.send('to all with a')

      expect(await amy.next()).toBe('to all with a')
      expect(await ann.next()).toBe('to all with a')
      await ben.expectNothing()
      expect(await stranger.expectClosed()).toEqual({ code: 4401, reason: 'sign in first' })
    },
  )

  it('closes the sockets of who logs out after "Authentication"', async () => {
    await using opened = await siteInFolderAfter('Authentication')
    const { site } = opened
    const [phone, desk] = [await opened.logIn('ann', 'apple'), await opened.logIn('ann', 'apple')]
    const sockets = [await site.connect('/', phone), await site.connect('/', desk)]
    const ben = await site.connect('/', await opened.logIn('ben', 'banana'))

    const { headers } = phone
    const response = await site.request(
      new Request('http://localhost/logout', { method: 'POST', headers }),
    )

    expect(await response.text()).toBe('Bye')
    for (const socket of sockets) expect((await socket.expectClosed()).code).toBe(4001)
    expect(ben.closed).toBeUndefined()
    const again = await site.connect('/', phone)
    expect((await again.expectClosed()).code).toBe(4401)
  })

  it('forgets who changed the password after "Authentication"', async () => {
    await using opened = await siteInFolderAfter('Authentication')
    const { site } = opened
    const ann = await site.connect('/', await opened.logIn('ann', 'apple'))
    const { accounts } = await opened.load('accounts.ts')

    accounts[0].password = 'apricot'
    ann.send('still me')

    await ann.expectNothing()
  })

  it('saves what is said, by whomever, after "Models"', async () => {
    await using opened = await siteInFolderAfter('Models')
    const { site } = opened
    const ann = await site.connect('/kitchen')
    const { savedMessages } = await opened.load('history.ts')

    ann.send('hello')
    expect(await ann.next()).toBe('hello')
    await Channel('chat-messages').send({ room: 'kitchen', message: 'dinner is ready' })
    expect(await ann.next()).toBe('dinner is ready')

    expect(savedMessages('kitchen')).toEqual([
      { room: 'kitchen', message: 'hello' },
      { room: 'kitchen', message: 'dinner is ready' },
    ])
  })
})
