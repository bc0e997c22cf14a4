import { randomBytes } from 'node:crypto'
import { readFile, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { defineRouting, Site, setup } from 'channelkit'
import { RedisBackend } from 'channelkit/redis'
import { TestSite } from 'channelkit/testing'
import { MemoryStore } from 'express-session'
import { describe, expect, it, vi } from 'vitest'
import { codeBlocks, writeBlocks } from '../../support/code-blocks.ts'

const modules = new URL('../../../node_modules', import.meta.url)

const load = (folder: string, file: string) => import(pathToFileURL(join(folder, file)).href)

describe('docs/testing.md', () => {
  it('has examples that pass', async () => {
    const blocks = await codeBlocks('docs/testing.md')
    await using files = await writeBlocks(blocks)
    // The tests of the page are run here, so their `it` only notes them.
    await writeFile(
      join(files.folder, 'vitest.ts'),
      `export { expect } from 'vitest'
       export const noted = []
       export const it = (title, run) => noted.push(run)`,
    )

    for (const { caption } of blocks) {
      const path = join(files.folder, caption)
      const code = await readFile(path, 'utf8')
      await writeFile(path, code.replace("from 'vitest'", "from './vitest.ts'"))
      await load(files.folder, caption)
    }
    const { noted } = await load(files.folder, 'vitest.ts')
    for (const run of noted) await run()

    expect(noted).toHaveLength(blocks.length)
  })
})

describe('docs/sessions.md', () => {
  it('has examples that run', async () => {
    await using files = await writeBlocks(await codeBlocks('docs/sessions.md'))
    await symlink(fileURLToPath(modules), join(files.folder, 'node_modules'))
    const { default: config } = await load(files.folder, 'channels.config.ts')
    const { auth } = await load(files.folder, 'auth.ts')
    const { onReceive, onOrder } = await load(files.folder, 'orders.ts')
    const { app: ticketApp } = await load(files.folder, 'ticket.ts')
    const { app: signOutApp } = await load(files.folder, 'sign-out.ts')
    const routing = defineRouting({ 'websocket.receive': onReceive, orders: onOrder })
    const session = { store: new MemoryStore(), secret: config.session.secret }
    await using site = await TestSite.open({ ...config, session, auth, routing, app: signOutApp })
    const somebody = await site.connect('/')

    somebody.send('tea, please')

    expect(await somebody.next()).toBe('somebody ordered tea')
    const signedOut = await site.request(new Request('http://localhost/logout', { method: 'POST' }))
    expect(signedOut.status).toBe(302)
    expect(ticketApp).toBeTypeOf('function')
    await config.session.store.close()
  })
})

describe('docs/operating.md', () => {
  it('has a config that makes a backend', async () => {
    vi.stubEnv('CHANNEL_KEYS', [1, 2].map(() => randomBytes(32).toString('base64')).join())
    await using files = await writeBlocks(await codeBlocks('docs/operating.md'))

    const { default: config } = await load(files.folder, 'channels.config.ts')
    const site = await Site.load(config)

    expect(site.backend()).toBeInstanceOf(RedisBackend)
    await site.close()
    vi.unstubAllEnvs()
  })
})

describe('docs/concepts.md', () => {
  it('has examples that run', async () => {
    await using files = await writeBlocks(await codeBlocks('docs/concepts.md'))
    const { onUpload } = await load(files.folder, 'jobs.ts')
    const { channelRouting } = await load(files.folder, 'thumbnails.ts')
    const { channels, onNote } = await load(files.folder, 'channels.ts')
    await using site = await TestSite.open({ channels }, { workers: false })

    await onUpload('cat.png')
    await onNote({ content: { room: 'kitchen', note: 'new' } })

    const [upload] = await site.receive('thumbnails')
    expect(upload?.content).toEqual({ file: 'cat.png', width: 200 })
    expect((await site.receive('room-notes')).map(({ content }) => content)).toEqual([
      { room: 'kitchen', note: 'seen' },
    ])
    expect([...channelRouting.routes.keys()]).toEqual(['thumbnails'])
  })
})

describe('README.md', () => {
  it('has a chat that works', async () => {
    await using files = await writeBlocks(await codeBlocks('README.md'))
    await using site = await TestSite.open(join(files.folder, 'channels.config.ts'))
    const [ann, ben] = [await site.connect('/kitchen'), await site.connect('/kitchen')]
    const eve = await site.connect('/garden')

    ann.send('hello')

    expect(await ben.next()).toBe('hello')
    await eve.expectNothing()
    expect((await site.request('/kitchen')).status).toBe(200)
  })
})

describe('docs/delivery.md', () => {
  it('has a recipe for repeats that sends each time once, whoever else does', async () => {
    const blocks = await codeBlocks('docs/delivery.md')
    await using files = await writeBlocks(blocks.filter(({ caption }) => caption === 'repeat.ts'))
    await symlink(fileURLToPath(modules), join(files.folder, 'node_modules'))
    const { repeat } = await load(files.folder, 'repeat.ts')
    const site = await setup({ channelBackends: { default: { backend: 'memory:' } } })

    const crons = [repeat('ticks', '* * * * * *'), repeat('ticks', '* * * * * *')]
    await vi.waitFor(
      async () => {
        const [ticks] = await site.backend().channels()
        expect(ticks?.waiting).toBeGreaterThanOrEqual(3)
      },
      { timeout: 8_000, interval: 50 },
    )
    for (const cron of crons) cron.stop()
    const messages = await site.backend().receive(['ticks'], { max: 100, waitMs: 0 })
    await site.close()

    const times = messages.map(({ content }) => Date.parse(String(content.at)) / 1_000)
    const [first = 0] = times
    expect(times).toEqual(times.map((_time, index) => first + index))
  })
})

describe('docs/background-work.md', () => {
  it('has a view that hands its work on, and tells its user how it went', async () => {
    await using files = await writeBlocks(await codeBlocks('docs/background-work.md'))
    await symlink(fileURLToPath(modules), join(files.folder, 'node_modules'))
    await using site = await TestSite.open(join(files.folder, 'jobs.ts'))
    const socket = await site.connect('/?user=ada')

    const response = await site.request('/make?user=ada')

    expect(response.status).toBe(202)
    expect(await socket.next()).toBe('cat.png is being made smaller')
    expect(await socket.next()).toBe('small-cat.png is ready')
  })
})
