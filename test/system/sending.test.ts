import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, symlink } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { ChannelBackend } from 'channelkit/backend'
import { MysqlBackend } from 'channelkit/mysql'
import { PostgresBackend } from 'channelkit/postgres'
import { RedisBackend } from 'channelkit/redis'
import { SqliteBackend } from 'channelkit/sqlite'
import { afterAll, afterEach, describe, expect, it } from 'vitest'
import {
  type CliResult,
  createSiteFolder,
  repository,
  type SiteFolder,
  withoutTestRunner,
} from '../support/cli.ts'
import { codeBlocks, readPage } from '../support/code-blocks.ts'
import { startProxy } from '../support/proxy.ts'
import { redisUrlIn } from '../support/redis-store.ts'
import { startMariadb, startPostgres, startRedis } from '../support/service-process.ts'

const services = [await startRedis(), await startPostgres(), await startMariadb()] as const
const [redis, postgres, mariadb] = services
const proxy = await startProxy(join(mariadb.folder, 'mariadb.sock'))
const page = await readPage('docs/sending.md')
const files = Object.fromEntries(
  (await codeBlocks('docs/sending.md')).map(({ caption, code }) => [caption, code]),
)

const postgresUrl = `postgres://postgres@localhost/postgres?host=${encodeURIComponent(postgres.folder)}`
const mysqlUrl = `mysql://root@127.0.0.1:${proxy.port}/site`

/** A backend as the site's config names it, and the same opened here. */
interface Place {
  readonly url: string
  readonly open: (folder: string) => ChannelBackend
  /** Whether a script ends without `site.close()`. */
  readonly endsUnclosed: boolean
}

const places: Readonly<Record<string, Place>> = {
  SQLite: {
    url: 'sqlite:site.sqlite',
    open: (folder) => new SqliteBackend({ file: join(folder, 'site.sqlite') }),
    endsUnclosed: true,
  },
  PostgreSQL: {
    url: postgresUrl,
    open: () => new PostgresBackend({ url: postgresUrl }),
    endsUnclosed: true,
  },
  MariaDB: {
    url: mysqlUrl,
    open: () => new MysqlBackend({ url: mysqlUrl }),
    endsUnclosed: false,
  },
  Redis: {
    url: redisUrlIn(redis.folder),
    open: () => new RedisBackend({ url: redisUrlIn(redis.folder) }),
    endsUnclosed: false,
  },
}

let site: SiteFolder
let opened: ChannelBackend | undefined

async function openSite(place: Place = places.SQLite as Place): Promise<ChannelBackend> {
  site = await createSiteFolder(files)
  for (const name of ['zod', 'pg', 'mysql2', 'redis']) {
    await symlink(join(repository, 'node_modules', name), join(site.path, 'node_modules', name))
  }
  await site.write({
    'node_modules/.bin/channelkit': `#!/bin/sh\nexec "${process.execPath}" "${repository}/dist/cli/bin.js" "$@"\n`,
  })
  await chmod(join(site.path, 'node_modules/.bin/channelkit'), 0o755)
  opened = place.open(site.path)
  await opened.flush()
  return opened
}

/** Runs a program in the site's folder to its end, which must come by itself. */
async function run(
  command: string,
  args: readonly string[],
  { env = {}, input, cwd = site.path }: { env?: object; input?: string; cwd?: string } = {},
): Promise<CliResult> {
  const child = spawn(command, args, {
    cwd,
    env: { ...withoutTestRunner(process.env), ...env },
    timeout: 20_000,
  })
  let [stdout, stderr] = ['', '']
  child.stdout.on('data', (chunk) => {
    stdout += chunk
  })
  child.stderr.on('data', (chunk) => {
    stderr += chunk
  })
  // Who reads nothing of it may have ended.
  child.stdin.on('error', () => {})
  child.stdin.end(input)
  await once(child, 'close')
  return { exitCode: child.exitCode, stdout, stderr }
}

const node = (args: readonly string[], options?: Parameters<typeof run>[2]) =>
  run(process.execPath, args, options)
const channelkit = (args: readonly string[], options?: Parameters<typeof run>[2]) =>
  run('node_modules/.bin/channelkit', args, options)

async function contents(backend: ChannelBackend, channel: string): Promise<unknown[]> {
  const messages = await backend.receive([channel], { max: 100, waitMs: 0 })
  return messages.map(({ content }) => content)
}

afterEach(async () => {
  await opened?.close()
  await site.dispose()
})

afterAll(async () => {
  await proxy.close()
  for (const service of services) await service[Symbol.asyncDispose]()
})

describe.each(Object.entries(places))('sending on %s', (_name, place) => {
  const env = { CHANNELS: place.url }

  it('works from a script, a management command and the shell, which end by themselves', async () => {
    const backend = await openSite(place)
    await backend.groupAdd([{ group: 'kitchen', channel: 'screen' }])

    const script = await node(['send-order.mjs'], { env })
    const command = await channelkit(['run', 'scripts/remind.ts', '--', '7'], { env })
    const sent = await channelkit(['send', 'orders', '{"id": 8}'], { env })
    const piped = await channelkit(['send', 'orders', '-', '--json'], { env, input: '{"id": 9}' })
    const group = await channelkit(['group-send', 'kitchen'], { env, input: '{"content": "hi"}' })

    expect(script).toEqual({ exitCode: 0, stdout: '', stderr: '' })
    expect(command).toMatchObject({ exitCode: 0, stdout: '' })
    expect(command.stderr).toContain('reminded')
    expect(sent).toMatchObject({ exitCode: 0, stderr: '' })
    expect(sent.stdout).toMatch(
      /^sent to channel orders on channel backend default \(.+\); no worker consumes it now\n$/,
    )
    expect(JSON.parse(piped.stdout)).toEqual({
      channel: 'orders',
      channelBackend: 'default',
      consumedBy: 0,
    })
    expect(group.stdout).toMatch(/^sent to group kitchen with 1 member on channel backend default /)
    expect(await contents(backend, 'orders')).toEqual([{ id: 1 }, { id: 7 }, { id: 8 }, { id: 9 }])
    expect(await contents(backend, 'screen')).toEqual([
      { content: 'an order comes' },
      { content: 'hi' },
    ])
  })

  it('sends for later from the shell', async () => {
    const backend = await openSite(place)

    const first = await channelkit(['send', 'orders', '{"id": 1}', '--delay-ms', '600000'], { env })
    const once = ['send', 'orders', '{"id": 2}', '--at', '2020-01-01T08:00+01:00', '--id', 'two']
    const second = await channelkit([...once, '--json'], { env })
    await channelkit(once, { env })

    const [, id = ''] = /^sent (\S+) for later to channel orders on /.exec(first.stdout) ?? []
    expect(JSON.parse(second.stdout)).toMatchObject({ channel: 'orders', id: 'two' })
    const taken = await backend.receive(['orders'], { max: 9, waitMs: 5_000 })
    expect(taken.map(({ content }) => content)).toEqual([{ id: 2 }])
    const cancelled = await channelkit(['cancel', 'orders', id], { env })
    expect(cancelled).toMatchObject({ exitCode: 0, stderr: '' })
    expect(cancelled.stdout).toContain(`cancelled ${id} on channel orders of channel backend`)
    const again = await channelkit(['cancel', 'orders', id, '--json'], { env })
    expect(again.exitCode).toBe(1)
    expect(JSON.parse(again.stdout)).toMatchObject({ id, cancelled: false })
    expect(await contents(backend, 'orders')).toEqual([])
  })

  it('takes a worker into account, and says when a channel is full', async () => {
    const backend = await openSite(place)
    const worker = await site.startWith(env, 'runworker').started()

    const sent = await channelkit(['send', 'orders', '{"id": 1}', '--json'], { env })

    expect(JSON.parse(sent.stdout)).toMatchObject({ consumedBy: 1 })
    worker.kill('SIGTERM')
    await worker.ended()
    const { capacity } = backend.limits
    await backend.send(
      Array.from({ length: capacity }, () => ({ channel: 'orders', content: { id: 1 } })),
    )
    const refused = await channelkit(['send', 'orders', '{"id": 2}'], { env })
    expect(refused).toMatchObject({ exitCode: 1, stdout: '' })
    expect(refused.stderr).toMatch(
      /^error: channel orders holds its capacity of 1000 messages\nhint: /,
    )
  })

  it(`needs ${place.endsUnclosed ? 'no' : 'a'} close at the end of a script`, async () => {
    await openSite(place)
    const script = (files['send-order.mjs'] ?? '').replace('await site.close()', '')
    await site.write({ 'unclosed.mjs': `${script}\nconsole.log('sent')` })

    const child = spawn(process.execPath, ['unclosed.mjs'], {
      cwd: site.path,
      env: { ...withoutTestRunner(process.env), ...env },
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    await once(child.stdout, 'data')
    const ended = once(child, 'exit').then(() => true)
    const waited = new Promise<false>((resolve) => setTimeout(resolve, 3_000, false))
    const endsBySelf = await Promise.race([ended, waited])
    child.kill('SIGKILL')
    await ended

    expect(endsBySelf).toBe(place.endsUnclosed)
  })
})

describe('a script on a backend inside its process', () => {
  it.each([
    ['with close', 'await site.close()'],
    ['without', ''],
  ])('is warned that nobody sees what it sends, %s', async (_how, end) => {
    await openSite()
    const script = (files['send-order.mjs'] ?? '').replace('await site.close()', end)
    await site.write({ 'script.mjs': script })

    const { exitCode, stderr } = await node(['script.mjs'], { env: { CHANNELS: 'memory:' } })

    expect(exitCode).toBe(0)
    expect(stderr.match(/ChannelkitWarning: what was sent to orders is lost/g)).toHaveLength(1)
  })

  it('is warned of a group too, and not when it took its messages itself', async () => {
    await openSite()
    const begin = `import { Channel, Group, setup } from 'channelkit'\nconst site = await setup()\n`
    await site.write({
      'group.mjs': `${begin}await Group('kitchen').send({ content: 'hi' })`,
      'taken.mjs': `${begin}await Channel('orders').send({ id: 1 })
        await site.backend().receive(['orders'], { max: 1, waitMs: 0 })`,
    })
    const env = { CHANNELS: 'memory:' }

    expect((await node(['group.mjs'], { env })).stderr).toContain('sent to groups is lost')
    expect((await node(['taken.mjs'], { env })).stderr).toBe('')
  })
})

describe('channelkit send', () => {
  it.each([
    [
      'broken JSON',
      ['{"id": 1,\n "x": tru}'],
      /line 2, column 7 stands "tru\}" instead of a value/,
    ],
    ['an unfinished object', ['{"id": 1'], /column 9 stands the end instead of "," or "\}"/],
    ['a list', ['[1]'], /is a list, and content is an object/],
    ['null', ['null'], /is null, and content is an object/],
    ['what does not fit the schema', ['{"id": "x"}'], /"orders" does not fit its schema/],
    ['nothing', [], /standard input is not JSON: at line 1, column 1 stands the end/],
    ['a missing file', ['--file', 'none.json'], /none\.json cannot be read: ENOENT/],
    ['content twice', ['{}', '--file', 'x.json'], /as an argument and in --file/],
    ['a delay that is none', ['{"id": 1}', '--delay-ms', 'soon'], /--delay-ms is "soon"\nhint: /],
    [
      'a time without a zone',
      ['{"id": 1}', '--at', '2030-01-01T08:00'],
      /--at is "2030-01-01T08:00"/,
    ],
    [
      'a delay and a time',
      ['{"id": 1}', '--delay-ms', '1', '--at', '2030-01-01T08:00Z'],
      /has both/,
    ],
    ['a bad id', ['{"id": 1}', '--id', 'a b'], /the id of a message is "a b"/],
    ['an unknown backend', ['{"id": 1}', '--channel-backend', 'x'], /no channel backend "x"/],
  ])('refuses %s with exit code 2', async (_what, args, message) => {
    const backend = await openSite()

    const result = await channelkit(['send', 'orders', ...args])

    expect(result).toMatchObject({ exitCode: 2, stdout: '' })
    expect(result.stderr).toMatch(message)
    expect(await contents(backend, 'orders')).toEqual([])
  })

  it.each([
    ['postgres://ada:se:cret@127.0.0.1:1/x', 'PostgreSQL at postgres://ada:…@127.0.0.1:1/x'],
    ['mysql://ada:se:cret@127.0.0.1:1/x', 'the database server at mysql://ada:…@127.0.0.1:1/x'],
  ])('says where nobody is, and why: %s', async (url, where) => {
    await openSite()

    const { exitCode, stderr } = await channelkit(['send', 'orders', '{"id": 1}'], {
      env: { CHANNELS: url },
    })

    expect(exitCode).toBe(1)
    expect(stderr).toBe(
      `error: channel backend default: ${where} cannot be reached: connect ECONNREFUSED 127.0.0.1:1\n` +
        'hint: start it, or correct its address\n',
    )
  })

  it('refuses a bad name, and a backend inside one process with the way out', async () => {
    await openSite()

    const named = await channelkit(['send', 'two words', '{}'])
    const memory = await channelkit(['send', 'orders', '{"id": 1}'], {
      env: { CHANNELS: 'memory:' },
    })

    expect(named).toMatchObject({ exitCode: 2 })
    expect(named.stderr).toMatch(/channel name "two words" has the character " "/)
    expect(memory).toMatchObject({ exitCode: 2 })
    expect(memory.stderr).toMatch(
      /default \(memory:\) stays inside one\nhint: write channelBackends/,
    )
  })

  it('ends with 1 when the backend is away', async () => {
    await openSite()

    const result = await channelkit(['send', 'orders', '{"id": 1}'], {
      env: { CHANNELS: 'redis://127.0.0.1:1' },
    })

    expect(result).toMatchObject({ exitCode: 1, stdout: '' })
    expect(result.stderr).toMatch(/^error: channel backend default: .*ECONNREFUSED/)
  })

  it('takes large content from a file and standard input, and refuses what can never fit', async () => {
    const backend = await openSite()
    const large = JSON.stringify({ text: '☕'.repeat(200_000) })
    await site.write({ 'large.json': large })

    const fromFile = await channelkit(['send', 'notes', '--file', 'large.json'])
    const piped = await channelkit(['send', 'notes'], { input: large })
    const tooLarge = await channelkit(['send', 'notes'], { input: `{"a":"${'x'.repeat(9e6)}"}` })
    const overLimit = await channelkit(['send', 'notes'], { input: `{"a":"${'x'.repeat(2e6)}"}` })

    expect([fromFile.exitCode, piped.exitCode]).toEqual([0, 0])
    expect(await contents(backend, 'notes')).toEqual([JSON.parse(large), JSON.parse(large)])
    expect(tooLarge).toMatchObject({ exitCode: 2 })
    expect(tooLarge.stderr).toContain('standard input has more than 8,388,608 bytes')
    expect(overLimit).toMatchObject({ exitCode: 2 })
  })
})

describe('channelkit run', () => {
  async function runScript(code: string, ...args: readonly string[]): Promise<CliResult> {
    await site.write({ 'scripts/it.ts': code })
    return channelkit(['run', 'scripts/it.ts', ...args])
  }

  it('hands arguments over, and ends with the code that the script has set', async () => {
    await openSite()
    const code = `console.log(JSON.stringify([process.argv.slice(1), 'top']))
      export default (args: readonly string[]) => { console.log(args.join()); process.exitCode = 7 }`

    const result = await runScript(code, '--', '--days', '3')

    expect(result).toMatchObject({ exitCode: 7, stderr: '' })
    const script = join(site.path, 'scripts/it.ts')
    expect(result.stdout).toBe(`${JSON.stringify([[script, '--days', '3'], 'top'])}\n--days,3\n`)
  })

  it.each([
    ['throws', `export default () => { throw new Error('nope', { cause: new Error('deep') }) }`],
    [
      'rejects at its top level',
      `await Promise.reject(new Error('nope', { cause: new Error('deep') }))`,
    ],
    [
      'lets a rejection go',
      `void Promise.reject(new Error('nope', { cause: new Error('deep') }))
       export default () => new Promise((resolve) => setTimeout(resolve, 5_000))`,
    ],
  ])('ends with 1 and the stack when the script %s', async (_how, code) => {
    await openSite()

    const { exitCode, stderr } = await runScript(code)

    expect(exitCode).toBe(1)
    expect(stderr).toMatch(/^Error: nope\n +at .*it\.ts:1:\d+/)
    expect(stderr).toMatch(/\ncaused by Error: deep\n/)
  })

  it('names the place of a fault of syntax, and a script that is not there', async () => {
    await openSite()

    expect(await runScript('const a = = 1')).toMatchObject({
      exitCode: 1,
      stderr: expect.stringMatching(/it\.ts:1:10/),
    })
    expect(await channelkit(['run', 'none.ts'])).toMatchObject({
      exitCode: 2,
      stderr: expect.stringMatching(/^error: there is no script .*none\.ts\nhint: /),
    })
  })

  it('closes the site at the end, and warns of what a script without a function leaves', async () => {
    await openSite()
    await site.write({ 'scripts/words.ts': `export const word: string = 'closed'` })
    const closing = `import type { Site } from 'channelkit'
      import { word } from './words.ts'
      export default async (_: unknown, site: Site) => {
        const close = site.backend().close.bind(site.backend())
        site.backend().close = async () => { await close(); console.log(word) }
      }`

    expect(await runScript(closing)).toEqual({ exitCode: 0, stdout: 'closed\n', stderr: '' })
    const loose = await runScript(`setTimeout(() => console.log('late'), 60_000)`)
    expect(loose).toMatchObject({ exitCode: 0, stdout: '' })
    expect(loose.stderr).toMatch(/WARN: the script left something under way.*Timeout/)
  })

  it.each([
    ['SIGTERM', 143],
    ['SIGINT', 130],
  ] as const)('closes the site on %s and ends with %i', async (signal, exitCode) => {
    await openSite()
    await site.write({
      'scripts/it.ts': `import type { Site } from 'channelkit'
        export default async (_: unknown, site: Site) => {
          const close = site.backend().close.bind(site.backend())
          site.backend().close = async () => { await close(); console.log('closed') }
          console.log('runs')
          await new Promise((resolve) => setTimeout(resolve, 60_000))
        }`,
    })
    const script = site.start('run', 'scripts/it.ts')
    await script.waitFor(/runs/)

    script.kill(signal)

    expect(await script.ended()).toEqual({ exitCode, stdout: 'runs\nclosed\n', stderr: '' })
  })

  it('leaves a signal to a script that listens for it', async () => {
    await openSite()
    await site.write({
      'scripts/it.ts': `export default () => new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, 60_000)
        process.on('SIGTERM', () => { console.log('tidied'); clearTimeout(timer); resolve() })
        console.log('runs')
      })`,
    })
    const script = site.start('run', 'scripts/it.ts')
    await script.waitFor(/runs/)

    script.kill('SIGTERM')

    expect(await script.ended()).toEqual({ exitCode: 0, stdout: 'runs\ntidied\n', stderr: '' })
  })
})

describe('docs/sending.md', () => {
  it.each([
    ['the line of cron', /^0 9 \* \* \* site (.+)$/m],
    ['the service of a timer', /^ExecStart=(.+)$/m],
  ])('has a command that sends: %s', async (_what, pattern) => {
    const backend = await openSite()
    const [, command = ''] = pattern.exec(page) ?? []
    const cwd = command.startsWith('cd ') ? '/' : site.path
    const path = `${dirname(process.execPath)}:/usr/bin:/bin`

    const result = await new Promise((resolve) => {
      const options = { cwd, env: { PATH: path, HOME: '/', SHELL: '/bin/sh' } }
      execFile('/bin/sh', ['-c', command.replaceAll('/srv/site', site.path)], options, resolve)
    })

    expect(result).toBeNull()
    expect(await contents(backend, 'orders')).toEqual([{ id: 7 }])
  })

  it.each([
    ['runserver', []],
    ['runserver without a worker, before its app', ['runserver', '--no-worker']],
    ['runwsserver', ['runwsserver']],
    ['runwsserver for HTTP too', ['runwsserver', '--accept-all']],
  ])('has a command of curl that sends by %s', async (_what, args) => {
    const backend = await openSite()
    const token = 'a1'.repeat(16)
    await site.write({
      'app.config.ts': `import config from './channels.config.ts'
        const app = { fetch: () => new Response('the app', { status: 418 }) }
        export default { ...config, app }`,
    })
    const command = args.length > 0 ? args : ['runserver']
    const options = ['--port', '0', '--config', 'app.config.ts']
    const server = site.startWith(
      { PUBLISH_TOKENS: `${'b'.repeat(32)},${token}` },
      ...command,
      ...options,
    )
    const url = await server.url()
    expect(server.stdout).toContain('by POST /channelkit/publish')
    const screen = 'screen'
    await backend.groupAdd([{ group: 'kitchen', channel: screen }])
    const [, line = ''] = /```sh\n(curl [^`]+)```/.exec(page) ?? []
    const program = process.env.CURL ?? 'curl'
    const curl = line.replace('http://localhost:8000', url).replace(/^curl/, program)

    const sent = await run('/bin/sh', ['-c', curl], { env: { PUBLISH_TOKEN: token } })
    const refused = await run('/bin/sh', ['-c', curl], { env: { PUBLISH_TOKEN: 'x' } })
    const elsewhere = await fetch(`${url}/channelkit/publish/`, { method: 'POST' })

    expect(sent).toMatchObject({ exitCode: 0, stdout: '{"sent":1}\n' })
    expect(refused.exitCode).toBe(22)
    expect(JSON.parse(refused.stdout)).toMatchObject({ error: { code: 'ERR_UNAUTHORIZED' } })
    const runsWorker = command.length === 1 && command[0] === 'runserver'
    expect(elsewhere.status).toBe(runsWorker ? 418 : command.length === 1 ? 426 : 503)
    const [channel, content] = runsWorker ? [screen, { content: 'order 1' }] : ['orders', { id: 1 }]
    const [message] = await backend.receive([channel], { max: 1, waitMs: 10_000 })
    expect(message?.content).toEqual(content)
    server.kill('SIGTERM')
    expect((await server.ended()).exitCode).toBe(0)
  })

  it('refuses a short token when a command loads the config', async () => {
    await openSite()

    const result = await channelkit(['channels'], { env: { PUBLISH_TOKENS: 'short' } })

    expect(result).toMatchObject({ exitCode: 2, stdout: '' })
    expect(result.stderr).toMatch(/publish\.tokens\[0\] has 5 characters\nhint: give at least 32/)
  })

  it('has commands of the shell that work', async () => {
    const backend = await openSite()
    const lines = [...page.matchAll(/^npx (channelkit .+)$/gm)].map(([, line]) => line ?? '')

    for (const line of lines) {
      const env = { PATH: `${site.path}/node_modules/.bin:/usr/bin:/bin` }
      expect(await run('/bin/sh', ['-c', line], { env })).toMatchObject({ exitCode: 0 })
    }

    expect(lines).toHaveLength(3)
    expect(await contents(backend, 'orders')).toEqual([{ id: 7 }, { id: 1 }])
  })
})
