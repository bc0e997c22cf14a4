import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Browser, BrowserContext, Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { WebSocket as WebSocketClient } from 'ws'
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
      CHAT_DATABASE: join(folder, 'chat.sqlite'),
    },
  })
  started.push(cli)
  return cli
}

async function newPage(url: string, context?: BrowserContext): Promise<Page> {
  const page = await (context ?? (await browser.newContext())).newPage()
  pages.push(page)
  page.on('pageerror', (error) => pageErrors.push(String(error)))
  await page.goto(url)
  return page
}

/** Waits for what the connect consumer sends after it has added the client to the group. */
async function joined(page: Page): Promise<Page> {
  await page.locator('#messages[aria-busy=false]').waitFor({ state: 'attached' })
  return page
}

async function openPage(url: string, nickname: string): Promise<Page> {
  const page = await joined(await newPage(url))
  await page.getByLabel('Writing as').fill(nickname)
  return page
}

const password = 'correct horse battery'

/** Fills in the form for signing up or logging in, and sends it. */
async function enter(page: Page, username: string, given = password): Promise<void> {
  await page.getByLabel('Name').fill(username)
  await page.getByLabel('Password').fill(given)
  await page.getByRole('button').click()
}

/** Signs up in a browser of its own, and comes to a room. */
async function signUp(url: string, username: string, path = '/'): Promise<Page> {
  const page = await newPage(`${url}/sign-up?next=${encodeURIComponent(path)}`)
  await enter(page, username)
  return joined(page)
}

/** Who wrote what, as a page shows it. */
function heads(page: Page): Promise<readonly string[]> {
  return page
    .locator('#messages li')
    .evaluateAll((items) =>
      items.map((item) =>
        ['b', '.who', '.text'].map((part) => item.querySelector(part)?.textContent).join(' '),
      ),
    )
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

  it('shows who is a user, and lets nobody write under the name of one', async () => {
    const url = await start('runserver', '--port', '0').url()
    const ada = await signUp(url, 'Ada', '/kitchen')
    const guest = await openPage(`${url}/kitchen`, 'Linus')

    expect(await ada.locator('#user').textContent()).toBe('Ada')
    await write(ada, 'tea?')
    await write(guest, 'please')
    await expect.poll(() => heads(guest)).toHaveLength(2)
    await guest.getByLabel('Writing as').fill('aDa')
    await write(guest, 'tea is off')

    await guest.getByText('“aDa” is the name of someone who has signed up').waitFor()
    expect(await guest.getByLabel('Message', { exact: true }).inputValue()).toBe('tea is off')
    const said = ['Ada verified tea?', 'Linus guest please']
    expect((await heads(ada)).toSorted()).toEqual(said)
    expect((await heads(guest)).toSorted()).toEqual(said)
    expect(pageErrors).toEqual([])
  })

  it('says kindly why it does not let somebody in', async () => {
    const url = await start('runserver', '--port', '0').url()
    await signUp(url, 'Ada')
    const page = await newPage(`${url}/sign-up`)
    const fault = page.getByRole('alert')

    await enter(page, 'ADA')
    expect(await fault.textContent()).toBe('The name ADA is taken. Please choose another.')
    await enter(page, 'Grace', 'short')
    expect(await fault.textContent()).toContain('too short')
    await enter(page, '<b>')
    expect(await fault.textContent()).toContain('2 to 20 letters')
    await page.getByRole('link', { name: 'Log in' }).click()
    await enter(page, 'Ada', 'a wrong password')
    expect(await fault.textContent()).toContain('do not belong together')
    expect(await page.getByLabel('Name').inputValue()).toBe('Ada')
    await enter(page, 'Ada')
    await joined(page)

    expect(await page.locator('#user').textContent()).toBe('Ada')
    const cookie = (await page.context().cookies()).find(({ name }) => name === 'connect.sid')
    expect(cookie).toMatchObject({ httpOnly: true, sameSite: 'Lax' })
  })

  it('keeps a room for the users of each letter', async () => {
    const url = await start('runserver', '--port', '0').url()
    const ada = await signUp(url, 'Ada', '/letter')
    const anton = await signUp(url, 'anton', '/letter')
    const ben = await signUp(url, 'Ben', '/letter')
    const guest = await openPage(`${url}/private-a`, 'Eve')

    await write(ada, 'only for A')
    await expectShown(anton, ['only for A'])
    await write(ben, 'only for B')
    await expectShown(ben, ['only for B'])
    await write(guest, 'let me in')
    await expectShown(guest, ['let me in'])

    expect(await ada.locator('h1').textContent()).toBe('Letter A')
    expect(await ben.locator('h1').textContent()).toBe('Letter B')
    expect(await shown(ada)).toEqual(['only for A'])
    await guest.goto(`${url}/letter`)
    expect(await guest.locator('h1').textContent()).toBe('A room for your letter')
    expect(await closeCode(guest, '/letter')).toBe(4401)
    await guest.getByRole('link', { name: 'Log in' }).click()
    await enter(guest, 'anton')
    await expectShown(await joined(guest), ['only for A'])
    expect(pageErrors).toEqual([])
  })

  it('closes the sockets of a user who logs out, and of no other', async () => {
    const url = await start('runserver', '--port', '0').url()
    const ada = await signUp(url, 'Ada')
    const tab = await joined(await newPage(`${url}/letter`, ada.context()))
    const grace = await signUp(url, 'Grace')

    await ada.getByRole('button', { name: 'Log out' }).click()
    await joined(ada)

    await tab.getByText('You have logged out').waitFor()
    expect(await tab.locator('#state').textContent()).toBe('Disconnected')
    expect(await tab.getByLabel('Message', { exact: true }).isDisabled()).toBe(true)
    expect(await ada.getByLabel('Writing as').count()).toBe(1)
    expect(await grace.locator('#state').textContent()).toBe('Connected')
    await write(grace, 'still here')
    await expectShown(ada, ['still here'])
    await tab.getByRole('link', { name: 'Go on' }).click()
    await tab.getByRole('heading', { name: 'A room for your letter' }).waitFor()
    expect(pageErrors).toEqual([])
  })

  it('takes no form of another site, and sends nobody to one', async () => {
    const url = await start('runserver', '--port', '0').url()
    const page = await newPage(
      `${url}/sign-up?next=${encodeURIComponent('https://evil.example/x')}`,
    )
    const body = new URLSearchParams({ username: 'mallory', password })
    const post = (origin: string) =>
      fetch(`${url}/sign-up`, {
        method: 'POST',
        body,
        headers: { origin, 'sec-fetch-site': origin === url ? 'same-origin' : 'cross-site' },
        redirect: 'manual',
      })

    expect((await post('https://evil.example')).status).toBe(403)
    expect((await post(url)).status).toBe(303)
    await enter(page, 'Ada')
    await joined(page)
    expect(page.url()).toBe(`${url}/`)
  })

  it('shows a ticket to a server at another port', async () => {
    const url = await start('runserver', '--port', '0').url()
    const { port } = new URL(await start('runwsserver', '--port', '0').url())
    const page = await newPage(`${url}/sign-up?next=${encodeURIComponent(`/letter?ws=${port}`)}`)
    const opened = page.waitForEvent('websocket')

    await enter(page, 'Ada')
    await joined(page)
    const socketUrl = new URL((await opened).url())
    expect(socketUrl.port).toBe(port)
    expect(socketUrl.searchParams.get('ticket')).toMatch(/^[\w-]{22}\.[\w-]{43}$/)

    // At another host there is no cookie: the ticket alone says who it is.
    const ticket = await page.evaluate(ticketOf)
    const stranger = await openPage(url, 'Eve')
    const open = (given: unknown) =>
      firstFrame(`ws://localhost:${port}/letter?ticket=${given}`, url)
    expect(await stranger.evaluate(ticketOf)).toBe(null)
    expect(await open(ticket)).toMatchObject({ type: 'history' })
    expect(await open(ticket)).toBe(4401)
    expect(pageErrors).toEqual([])
  })
})

async function ticketOf(): Promise<unknown> {
  const response = await fetch('/ticket', { method: 'POST' })
  const { ticket } = (await response.json()) as { ticket: unknown }
  return ticket
}

/** The first frame that a client without cookies is sent, or the code it is closed with. */
function firstFrame(url: string, origin: string): Promise<unknown> {
  return new Promise((resolve) => {
    const socket = new WebSocketClient(url, { origin })
    socket.on('message', (data) => {
      resolve(JSON.parse(String(data)))
      socket.close()
    })
    socket.on('close', resolve)
  })
}

/** The code that a socket of a page's site is closed with. */
function closeCode(page: Page, path: string): Promise<number> {
  const url = new URL(path, page.url().replace('http', 'ws')).href
  return page.evaluate((to) => {
    const socket = new WebSocket(to)
    return new Promise<number>((resolve) => {
      socket.onclose = ({ code }) => resolve(code)
    })
  }, url)
}

async function freePort(): Promise<string> {
  const server = createServer().listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const { port } = server.address() as { port: number }
  await new Promise((resolve) => server.close(resolve))
  return String(port)
}
