import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Browser, Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { launchChromium } from '../support/chromium.ts'
import { Cli, repository } from '../support/cli.ts'

const config = join(repository, 'examples/chat/channels.config.ts')

let browser: Browser
let folder: string
let started: Cli[]
let pages: Page[]
let pageErrors: string[]

beforeAll(async () => {
  browser = await launchChromium()
})

afterAll(async () => {
  await browser.close()
})

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'channelkit-chat-'))
  started = []
  pages = []
  pageErrors = []
})

afterEach(async () => {
  await Promise.all(pages.map((page) => page.context().close()))
  for (const cli of started) cli.kill('SIGKILL')
  await Promise.all(started.map((cli) => cli.ended()))
  await rm(folder, { recursive: true })
})

function start(...args: readonly string[]): Cli {
  const cli = new Cli([...args, '--config', config], {
    env: {
      CHANNELS_URL: `sqlite:${join(folder, 'channels.sqlite')}`,
      CHAT_HISTORY: join(folder, 'chat.sqlite'),
    },
  })
  started.push(cli)
  return cli
}

async function openPage(url: string, nickname: string): Promise<Page> {
  const context = await browser.newContext()
  const page = await context.newPage()
  pages.push(page)
  page.on('pageerror', (error) => pageErrors.push(String(error)))
  await page.goto(url)
  // Sent by the connect consumer, after it has added the client to the group.
  await page.locator('#messages[aria-busy=false]').waitFor({ state: 'attached' })
  await page.getByLabel('Writing as').fill(nickname)
  return page
}

async function write(page: Page, text: string): Promise<void> {
  await page.getByLabel('Message', { exact: true }).fill(text)
  await page.keyboard.press('Enter')
}

function shown(page: Page): Promise<readonly string[]> {
  return page.locator('#messages .text').allTextContents()
}

async function expectShown(page: Page, texts: readonly string[]): Promise<void> {
  await expect.poll(() => shown(page), { timeout: 20_000 }).toEqual(texts)
}

describe('the chat', () => {
  it('passes messages on within a room, and shows them after a reload', async () => {
    const url = await start('runserver', '--port', '0').url()
    const ada = await openPage(`${url}/kitchen`, 'Ada')
    const grace = await openPage(`${url}/kitchen`, 'Grace')
    const elsewhere = await openPage(url, 'Linus')

    await write(ada, 'is the kettle on?')
    await expectShown(grace, ['is the kettle on?'])
    await write(grace, 'nearly')
    await expectShown(ada, ['is the kettle on?', 'nearly'])
    await ada.reload()

    await expectShown(ada, ['is the kettle on?', 'nearly'])
    await expect.poll(() => ada.locator('#people').textContent()).toBe('2 people here')
    expect(await ada.getByLabel('Writing as').inputValue()).toBe('Ada')
    expect(await shown(elsewhere)).toEqual([])
    expect(pageErrors).toEqual([])
  })

  it('shows markup as text', async () => {
    const url = await start('runserver', '--port', '0').url()
    const page = await openPage(`${url}/%3Cb%3Eroom`, '<i>Mallory')
    const markup = '<img src="x" onerror="document.title = 1"><script>document.title = 2</script>'

    await write(page, markup)
    await expectShown(page, [markup])

    expect(await page.locator('#messages b').allTextContents()).toEqual(['<i>Mallory'])
    expect(await page.locator('h1').textContent()).toBe('<b>room')
    expect(await page.title()).toBe('<b>room · Chat')
  })

  it('loses no message while workers are killed and started again', async () => {
    const url = await start('runserver', '--no-worker', '--port', '0').url()
    const [first, second] = await Promise.all([
      start('runworker').started(),
      start('runworker').started(),
    ])
    const ada = await openPage(url, 'Ada')
    const grace = await openPage(url, 'Grace')

    first.kill('SIGKILL')
    await write(ada, 'one of two is gone')
    await expectShown(grace, ['one of two is gone'])
    second.kill('SIGTERM')
    await second.ended()
    await write(ada, 'nobody works')
    await expect
      .poll(() => ada.locator('#outbox .text').allTextContents())
      .toEqual(['nobody works'])
    await start('runworker').started()

    await expectShown(grace, ['one of two is gone', 'nobody works'])
    await expectShown(ada, ['one of two is gone', 'nobody works'])
    expect(await ada.locator('#outbox li').count()).toBe(0)
    expect(await ada.locator('#state').textContent()).toBe('Connected')
  })

  it('makes up for what was written while its server was away', async () => {
    const port = await freePort()
    const server = start('runserver', '--port', port)
    const [url, otherUrl] = await Promise.all([
      server.url(),
      start('runserver', '--port', '0').url(),
    ])
    const ada = await openPage(url, 'Ada')
    const grace = await openPage(otherUrl, 'Grace')
    await write(ada, 'all here')
    await expectShown(grace, ['all here'])

    server.kill('SIGTERM')
    await server.ended()
    await ada.getByText('Connection lost, trying again…').waitFor()
    await write(grace, 'while you are away')
    await expectShown(grace, ['all here', 'while you are away'])
    await write(ada, 'written without a server')
    await start('runserver', '--port', port).started()

    const all = ['all here', 'while you are away', 'written without a server']
    await expectShown(ada, all)
    await expectShown(grace, all)
    expect(await ada.locator('#outbox li').count()).toBe(0)
    expect(pageErrors).toEqual([])
  })
})

async function freePort(): Promise<string> {
  const server = createServer().listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const { port } = server.address() as { port: number }
  await new Promise((resolve) => server.close(resolve))
  return String(port)
}
