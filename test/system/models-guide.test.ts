import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, symlink } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { afterAll, afterEach, beforeEach, expect, it } from 'vitest'
import { WebSocket } from 'ws'
import { createSiteFolder, repository, type SiteFolder, withoutTestRunner } from '../support/cli.ts'
import { codeBlocks, readPage } from '../support/code-blocks.ts'
import { runPostgres } from '../support/postgres-store.ts'
import { startPostgres } from '../support/service-process.ts'

const page = 'docs/models.md'
const packages = ['sequelize', 'pg', 'express', 'typeorm', 'drizzle-orm', 'tsx']

const server = await startPostgres()
const databaseUrl = `postgres://postgres@localhost/postgres?host=${encodeURIComponent(server.folder)}`
const env = { DATABASE_URL: databaseUrl }
let site: SiteFolder
let sockets: WebSocket[] = []

beforeEach(async () => {
  const blocks = await codeBlocks(page)
  site = await createSiteFolder(
    Object.fromEntries(blocks.map(({ caption, code }) => [caption, code])),
  )
  for (const name of packages) {
    const link = join(site.path, 'node_modules', name)
    await mkdir(dirname(link), { recursive: true })
    await symlink(join(repository, 'node_modules', name), link)
  }
})

afterEach(async () => {
  for (const socket of sockets) socket.terminate()
  sockets = []
  await site.dispose()
})

afterAll(() => server[Symbol.asyncDispose]())

/** Runs a script in the site's folder to its end. */
async function run(...args: readonly string[]): Promise<void> {
  const child = spawn(process.execPath, ['--import', 'tsx', ...args], {
    cwd: site.path,
    env: { ...withoutTestRunner(process.env), ...env },
    stdio: ['ignore', 'inherit', 'inherit'],
  })
  const [code] = await once(child, 'exit')
  expect(code).toBe(0)
}

/** Enters a room; what is heard there is added to the list. */
async function enter(url: string, room: string): Promise<{ readonly heard: string[] }> {
  const socket = new WebSocket(`${url.replace('http:', 'ws:')}/${room}`)
  sockets.push(socket)
  const heard: string[] = []
  socket.on('message', (data) => heard.push(String(data)))
  await once(socket, 'message')
  return { heard }
}

it(`has a chat that tells rows to rooms, whoever saves them (${page})`, async () => {
  await run('make-tables.ts')
  const cli = site.startWith(env, 'runserver', '--port', '0')
  const url = await cli.url()
  const [ann, eve] = [await enter(url, 'kitchen'), await enter(url, 'garden')]
  const expected = ['Welcome to the kitchen']
  const hears = async (...texts: readonly string[]): Promise<void> => {
    expected.push(...texts)
    await expect.poll(() => ann.heard, { timeout: 15_000 }).toEqual(expected)
  }

  sockets[0]?.send('hello')
  await hears('hello')
  sockets[0]?.send('!help')
  await hears('!help', 'bot: just talk, somebody will answer')
  const post = (path: string, body: string) =>
    fetch(url + path, { method: 'POST', body, headers: { 'content-type': 'text/plain' } })
  expect((await post('/rooms/kitchen/say', 'from a view')).status).toBe(202)
  await hears('from a view')
  expect((await post('/rooms/kitchen/notes', 'saved by a view')).status).toBe(201)
  await hears('saved by a view')
  await run('nightly.ts')
  await hears('Last orders!')
  const said = '{"room": "kitchen", "message": "Dinner is ready"}'
  expect(await readPage(page)).toContain(`npx channelkit send chat-messages '${said}'`)
  const sent = site.startWith(env, 'send', 'chat-messages', said)
  expect((await sent.ended()).exitCode).toBe(0)
  await hears('Dinner is ready')
  const [, sql = ''] = /```sql\n([\s\S]*?)```/.exec(await readPage(page)) ?? []
  await runPostgres(server.folder, sql)
  await hears('The server restarts at noon')

  const { rows } = await runPostgres(
    server.folder,
    'SELECT message FROM "ChatMessages" ORDER BY id',
  )
  expect(rows.map(({ message }) => message)).toEqual(expected.slice(1))
  expect(eve.heard).toEqual(['Welcome to the garden'])

  await runPostgres(server.folder, 'CREATE TABLE notes (id serial, room text, message text)')
  for (const file of ['typeorm-say.ts', 'drizzle-say.ts']) {
    await site.write({
      'say.ts': `import { setup } from 'channelkit'
        import * as module from './${file}'
        const site = await setup()
        await module.say('garden', '${file}')
        await site.close()
        process.exit()`,
    })
    await run('say.ts')
  }
  await expect.poll(() => eve.heard.length, { timeout: 15_000 }).toBe(3)
  expect(eve.heard.slice(1).map((text) => JSON.parse(text))).toMatchObject([
    {
      model: 'chat-message',
      action: 'create',
      fields: { room: 'garden', message: 'typeorm-say.ts' },
    },
    { model: 'note', action: 'create', fields: { message: 'drizzle-say.ts' } },
  ])
})
