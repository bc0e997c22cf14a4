import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { SqliteBackend } from 'channelkit/sqlite'
import { afterEach, describe, expect, it } from 'vitest'
import { WebSocket } from 'ws'
import packageJson from '../../package.json' with { type: 'json' }
import { Cli, createSiteFolder, type SiteFolder, withoutTestRunner } from '../support/cli.ts'

const sqliteUrl = 'sqlite:site.sqlite'

function config(backend = sqliteUrl, more = ''): string {
  return `import { defineConfig } from 'channelkit'
export default defineConfig({
  channelBackends: { default: { backend: '${backend}', routing: './routing.ts#channelRouting' } },
  ${more}
})
`
}

const routing = `import { defineRouting } from 'channelkit'
import { answer, echo, fail, hang, letGo, report } from './consumers.ts'

export const channelRouting = defineRouting({
  'http.request': answer,
  'websocket.receive': echo,
  fail,
  hang,
  'let-go': letGo,
  report,
})
`

const consumers = `import type { Message } from 'channelkit'

interface Nothing {
  removed: true
}

export async function answer(message: Message<'http.request'>) {
  await message.replyChannel.send({ content: \`you asked for \${message.content.path}\` })
}
export async function echo(message: Message<'websocket.receive'>) {
  await message.replyChannel.send({ content: message.content.content })
}
export function fail() {
  throw new Error('this consumer fails')
}
export function hang() {
  console.log('hanging')
  return new Promise<void>(() => {})
}
export function letGo() {
  void Promise.reject(new Error('a rejection let go'))
  setImmediate(() => {
    throw new Error('an exception let go')
  })
}
export function report() {
  console.log('still at work')
}
`

const site = { 'channels.config.ts': config(), 'routing.ts': routing, 'consumers.ts': consumers }
const unused = { port: ['--port', '0'] }

let folder: SiteFolder | undefined

async function open(files: Readonly<Record<string, string>> = {}): Promise<SiteFolder> {
  folder = await createSiteFolder({ ...site, ...files })
  return folder
}

afterEach(async () => {
  await folder?.dispose()
  folder = undefined
})

async function send(...channels: readonly string[]): Promise<void> {
  const backend = new SqliteBackend({ file: join(folder?.path ?? '', 'site.sqlite') })
  await backend.send(channels.map((channel) => ({ channel, content: {} })))
  await backend.close()
}

describe('channelkit', () => {
  it('prints its version', async () => {
    const result = await new Cli(['--version']).ended()

    expect(result).toEqual({ exitCode: 0, stdout: `${packageJson.version}\n`, stderr: '' })
  })

  it.each([
    [['--help'], ['runserver', 'runwsserver', 'runworker', 'migrate', 'flush', 'Examples:']],
    [
      ['migrate', '--help'],
      ['--config', 'channelkit migrate'],
    ],
    [
      ['flush', '--help'],
      ['--yes', '--json', '--channel-backend', 'Examples:'],
    ],
    [
      ['channels', '--help'],
      ['--json', '--channel-backend', 'Examples:'],
    ],
    [
      ['runserver', '--help'],
      ['--port', '--host', '--unix-socket', '--no-worker', '--config'],
    ],
    [
      ['runwsserver', '--help'],
      ['--accept-all', '9000', '--log-level', '--log-format'],
    ],
    [
      ['runworker', '--help'],
      ['--concurrency', '--channel-backend', 'Examples:'],
    ],
  ])('explains itself on %j', async (args, words) => {
    const { exitCode, stdout, stderr } = await new Cli(args).ended()

    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: '' })
    for (const word of words) expect(stdout).toContain(word)
    expect(Math.max(...stdout.split('\n').map((line) => line.length))).toBeLessThanOrEqual(100)
  })

  it('prints its help to the error output when no command is given', async () => {
    const { exitCode, stdout, stderr } = await new Cli([]).ended()

    expect({ exitCode, stdout }).toEqual({ exitCode: 2, stdout: '' })
    expect(stderr).toMatch(/^Usage: channelkit/)
  })

  it.each([
    [['runsrver'], "unknown command 'runsrver'", 'did you mean runserver?'],
    [['runserver', '--prt', '1'], "unknown option '--prt'", 'did you mean --port?'],
    [['runserver', '--port', '65536'], '--port is "65536"', 'give a whole number from 0 to 65535'],
    [['runserver', '--port', 'web'], '--port is "web"', 'give a whole number from 0 to 65535'],
    [['runserver', '--port'], "option '--port <number>' argument missing", 'see channelkit --help'],
    [
      ['runworker', '--concurrency', '0'],
      '--concurrency is "0"',
      'give a whole number from 1 to 10000',
    ],
    [
      ['runworker', '--log-level', 'loud'],
      "option '--log-level <level>' argument 'loud' is invalid",
      'allowed choices are debug, info, warn, error',
    ],
    [['runworker', 'mine'], "too many arguments for 'runworker'", 'expected 0 arguments but got 1'],
    [
      ['runserver', '--config', '/nowhere/channels.config.ts'],
      'there is no config file /nowhere/channels.config.ts',
      'check the path given by --config',
    ],
  ])('refuses %j', async (args, line, hint) => {
    const result = await new Cli(args).ended()

    expect(result).toEqual({
      exitCode: 2,
      stdout: '',
      stderr: `error: ${line}\nhint: ${hint}\n`,
    })
  })
})

describe('a site that cannot start', () => {
  const correct = 'correct the file and start again; --log-level debug shows the stack'
  const noFile =
    'references start from FOLDER, the folder of the config file or the root given to setup'

  it.each<[string, Record<string, string>, string, string]>([
    [
      'a reference to a file that is not there',
      { 'channels.config.ts': config().replace('./routing.ts', './gone.ts') },
      'the routing of channel backend default points to "./gone.ts#channelRouting", and there is no file FOLDER/gone.ts',
      noFile,
    ],
    [
      'a reference without an export',
      { 'channels.config.ts': config().replace('#channelRouting', '') },
      'the routing of channel backend default is "./routing.ts", which names no export',
      "write both its file and its export, like './routing.ts#channelRouting'",
    ],
    [
      'a reference to an export that is not there',
      {
        'routing.ts': `import { defineRouting } from 'channelkit'
export const channelRouting = defineRouting({ 'websocket.connect': './consumers.ts#wsAdd' })`,
      },
      'the route of channel websocket.connect points to "./consumers.ts#wsAdd", and ./consumers.ts has no export "wsAdd"',
      'it exports answer, echo, fail, hang, letGo, report',
    ],
    [
      'a syntax error in a TypeScript file',
      { 'consumers.ts': `export function answer() {}\n\nexport function echo( {\n  return\n}\n` },
      'FOLDER/consumers.ts:6:0: SyntaxError: Expected ")" but found end of file',
      'correct the file and start again',
    ],
    [
      'a syntax error in a JavaScript file',
      {
        'channels.config.ts': config().replace('.ts#', '.js#'),
        'routing.js': routing.replace('.ts', '.js'),
        'consumers.js': 'export function answer() {\n  return (\n}\n',
      },
      "FOLDER/consumers.js:3: SyntaxError: Unexpected token '}'",
      correct,
    ],
    [
      'an import of a name that is not exported',
      {
        'consumers.ts': `\nimport { gone } from './routing-parts.ts'\ngone()\n`,
        'routing-parts.ts': '',
      },
      "FOLDER/consumers.ts:2: SyntaxError: The requested module './routing-parts.ts' does not provide an export named 'gone'",
      correct,
    ],
    [
      'an import of a package that is not installed',
      { 'consumers.ts': `import 'not-a-package'\n` },
      "FOLDER/consumers.ts: imports package 'not-a-package', which is not there",
      'check the spelling, or install the package',
    ],
    [
      'a file that throws, at its line in TypeScript',
      { 'consumers.ts': consumers.replace('interface', 'undefinedThing()\ninterface') },
      'FOLDER/consumers.ts:3:1: ReferenceError: undefinedThing is not defined',
      correct,
    ],
    [
      'a channel name that is none',
      { 'routing.ts': routing.replace("'let-go'", "'let go'") },
      'FOLDER/routing.ts:4:31: channel name "let go" has the character " "',
      'use only A-Z a-z 0-9 . _ -',
    ],
    [
      'a syntax error in the config',
      { 'channels.config.ts': 'export default {{\n' },
      'FOLDER/channels.config.ts:1:16: SyntaxError: Expected identifier but found "{"',
      'correct the file and start again',
    ],
    [
      'a config that exports nothing',
      { 'channels.config.ts': 'export const other = {}\n' },
      'config file FOLDER/channels.config.ts exports other',
      'export default defineConfig({ … })',
    ],
    [
      'an unknown key in the config',
      { 'channels.config.ts': `export default { chanelBackends: {} }\n` },
      'the config has an unknown key "chanelBackends"',
      'it may have channelBackends, app, channels, staticFiles, websocket, http, worker, publish, session, auth, mode',
    ],
    [
      'a backend of no known kind',
      { 'channels.config.ts': config('carrier-pigeon:coop') },
      'channel backend URL "carrier-pigeon:coop" is of no known kind',
      'use memory:, sqlite:FILE, postgres://USER@HOST/DATABASE, mysql://USER@HOST/DATABASE or redis://HOST:PORT',
    ],
  ])('names %s', async (_, files, line, hint) => {
    const { path, run } = await open(files)

    const { exitCode, stderr } = await run('runserver', ...unused.port)

    expect(stderr.replaceAll(path, 'FOLDER')).toBe(`error: ${line}\nhint: ${hint}\n`)
    expect(exitCode).toBe(2)
  })

  it('names a backend that cannot be opened, with exit code 1', async () => {
    const { path, run } = await open({ 'channels.config.ts': config('sqlite:missing/site.sqlite') })

    const { exitCode, stderr } = await run('runserver', ...unused.port)

    expect(stderr.replaceAll(path, 'FOLDER')).toBe(
      `error: channel backend default: the SQLite database FOLDER/missing/site.sqlite cannot be opened
hint: its directory must exist and be writable
`,
    )
    expect(exitCode).toBe(1)
  })

  it('names an unknown channel backend', async () => {
    const { run } = await open()

    const { exitCode, stderr } = await run('runworker', '--channel-backend', 'thumbnails')

    expect(stderr).toBe(
      'error: there is no channel backend "thumbnails"\nhint: the config has default\n',
    )
    expect(exitCode).toBe(2)
  })

  it('names a port in use, with exit code 1', async () => {
    const { run } = await open()
    const other = createServer().listen(0, '127.0.0.1')
    await once(other, 'listening')
    const { port } = other.address() as { port: number }

    const { exitCode, stderr } = await run('runserver', '--port', String(port))
    other.close()

    expect(stderr).toMatch(
      new RegExp(
        `^error: port ${port} of 127.0.0.1 is in use\nhint: stop the process that listens there, or choose another port, like --port \\d+\n$`,
      ),
    )
    expect(exitCode).toBe(1)
  })

  it.each([
    [
      ['--host', '192.0.2.1'],
      '"192.0.2.1" is no address of this machine',
      'use --host 127.0.0.1, or --host 0.0.0.0 for every address',
    ],
    [
      ['--unix-socket', '/nowhere/site.sock'],
      'there is no folder for /nowhere/site.sock',
      'make it, or choose another one by --unix-socket',
    ],
  ])('cannot listen with %j', async (args, line, hint) => {
    const { run } = await open()

    const { exitCode, stderr } = await run('runwsserver', ...unused.port, ...args)

    expect(stderr).toBe(`error: ${line}\nhint: ${hint}\n`)
    expect(exitCode).toBe(1)
  })

  it('shows the stack with --log-level debug only', async () => {
    const { run } = await open({ 'consumers.ts': `undefinedThing()\n${consumers}` })

    const brief = await run('runserver', ...unused.port)
    const long = await run('runserver', ...unused.port, '--log-level', 'debug')

    expect(brief.stderr).not.toMatch(/^ +at /m)
    expect(long.stderr).toMatch(/^ +at .*consumers\.ts:1:1/m)
  })

  it.each([
    ['runworker', []],
    ['runwsserver', unused.port],
    ['runserver --no-worker', unused.port],
  ])('refuses %s on a backend that stays in its process', async (command, args) => {
    const { path, run } = await open({ 'channels.config.ts': config('memory:') })

    const { exitCode, stderr } = await run(...command.split(' '), ...args)

    expect(stderr).toBe(
      `error: ${command} works together with other processes, and channel backend default (memory:) stays inside one
hint: write channelBackends: { default: { backend: 'sqlite:.channelkit/channels.sqlite' } } in ${path}/channels.config.ts, or use channelkit runserver alone
`,
    )
    expect(exitCode).toBe(2)
  })
})

describe('channelkit runserver', () => {
  it('says where it listens, and what it runs', async () => {
    const { path, start } = await open()

    const { stdout } = await start('runserver', ...unused.port).started()

    expect(stdout.replace(path, 'FOLDER').replace(/:\d+\n/, ':PORT\n')).toBe(
      `Channelkit ${packageJson.version} runserver, development mode
  listening  http://localhost:PORT
  backend    sqlite:site.sqlite
  consuming  http.request, websocket.receive, fail, hang, let-go, report
  config     FOLDER/channels.config.ts
Ctrl+C stops it.
`,
    )
  })

  it.each(['sqlite:site.sqlite', 'memory:'])('serves HTTP and WebSocket on %s', async (backend) => {
    const { start } = await open({ 'channels.config.ts': config(backend) })
    const url = await start('runserver', ...unused.port).url()

    const response = await fetch(`${url}/page`)
    const echoed = await roundTrip(url, 'hello')

    expect(await response.text()).toBe('you asked for /page')
    expect(echoed).toBe('hello')
  })

  it.each([
    ['without a type', '{}', 'channels.config.ts'],
    ['of type commonjs', '{ "type": "commonjs" }', 'channels.config.ts'],
    ['of type commonjs with .mts', '{ "type": "commonjs" }', 'channels.config.mts'],
    ['of type commonjs with .js', '{ "type": "commonjs" }', 'channels.config.js'],
  ])('starts in a package %s', async (_, packageJson, file) => {
    const { start } = await open({
      'package.json': packageJson,
      [file]: `${config('memory:')}await null\n`,
    })

    const url = await start('runserver', ...unused.port, '--config', file).url()

    expect(await (await fetch(`${url}/page`)).text()).toBe('you asked for /page')
  })

  it('finds the config file above the working directory', async () => {
    const { path } = await open({ 'deep/down/file': '' })
    const cli = new Cli(['runserver', ...unused.port], { cwd: join(path, 'deep/down') })

    await cli.started()
    cli.kill('SIGTERM')

    expect((await cli.ended()).stdout).toContain(`config     ${path}/channels.config.ts`)
  })

  it('leaves the work to runworker with --no-worker', async () => {
    const { start } = await open()
    const url = await start('runserver', '--no-worker', ...unused.port).url()
    await start('runworker').started()

    const response = await fetch(`${url}/elsewhere`)

    expect(await response.text()).toBe('you asked for /elsewhere')
  })

  it('listens on a socket file, also on one left behind by a killed process', async () => {
    const { start, run } = await open()
    const killed = await start('runserver', '--unix-socket', 'site.sock').started()
    killed.kill('SIGKILL')
    await killed.ended()

    const next = await start('runserver', '--unix-socket', 'site.sock').started()
    const { exitCode, stderr } = await run('runserver', '--unix-socket', 'site.sock')

    expect(next.stdout).toContain('listening  unix:site.sock')
    expect(stderr).toMatch(/^error: another process listens on site\.sock\n/)
    expect(exitCode).toBe(1)
  })

  it('logs a JSON object a line in production', async () => {
    const { startWith } = await open()
    const cli = startWith({ NODE_ENV: 'production' }, 'runserver', ...unused.port)

    const url = await cli.url()
    cli.kill('SIGTERM')
    const { stdout } = await cli.ended()

    const lines = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line))
    expect(lines[0]).toMatchObject({
      level: 'info',
      msg: 'runserver started',
      listening: url,
      backend: 'sqlite:site.sqlite',
    })
    expect(lines.at(-1)).toMatchObject({ level: 'info', msg: 'stopped' })
  })

  it('logs for a person in production with --log-format human', async () => {
    const { startWith } = await open()

    const cli = startWith(
      { NODE_ENV: 'production' },
      'runserver',
      ...unused.port,
      '--log-format',
      'human',
    )

    expect((await cli.started()).stdout).toMatch(/^Channelkit .* runserver, production mode\n/)
  })
})

describe('channelkit runwsserver', () => {
  it('serves WebSocket, and refuses HTTP with 426', async () => {
    const { start } = await open()
    const url = await start('runwsserver', ...unused.port).url()
    await start('runworker').started()

    const response = await fetch(`${url}/page`)
    const echoed = await roundTrip(url, 'hello')

    expect(response.status).toBe(426)
    expect(response.headers.get('upgrade')).toBe('websocket')
    expect(await response.text()).toBe(
      'Here are WebSockets only. Pages are served elsewhere; or start with --accept-all.\n',
    )
    expect(echoed).toBe('hello')
  })

  it.each([
    ['runwsserver', 'half of its head', 'GET / HTTP/1.1\r\nHost: localhost\r\nUpgr'],
    [
      'runwsserver',
      'a head beyond http.maxHeaderBytes',
      `GET / HTTP/1.1\r\nA: ${'a'.repeat(2_000)}`,
    ],
    ['runserver', 'half of its head', 'GET / HTTP/1.1\r\nHost: localhost\r\nUpgr'],
  ])('%s cuts a handshake with %s', async (command, _, head) => {
    const limits = 'http: { headersMs: 1_000, maxHeaderBytes: 1_024 },'
    const { start } = await open({ 'channels.config.ts': config(sqliteUrl, limits) })
    const { port } = new URL(await start(command, ...unused.port).url())
    const startedAt = performance.now()
    const socket = connect(Number(port), '127.0.0.1')
    const answers: string[] = []
    socket.on('data', (chunk) => answers.push(String(chunk)))

    socket.write(head)
    await once(socket, 'close')

    // Unset it would be ten seconds.
    expect(performance.now() - startedAt).toBeLessThan(8_000)
    expect(answers.join('')).toMatch(/^HTTP\/1\.1 (408|431) /)
  })

  it('serves HTTP too with --accept-all', async () => {
    const { start } = await open()
    const url = await start('runwsserver', '--accept-all', ...unused.port).url()
    await start('runworker').started()

    const response = await fetch(`${url}/page`)

    expect(await response.text()).toBe('you asked for /page')
  })
})

describe('channelkit runworker', () => {
  it('logs a consumer that fails with its line in TypeScript, and goes on', async () => {
    const { start } = await open()
    const cli = await start('runworker').started()

    await send('fail', 'report')
    await cli.waitFor(/still at work/)

    const line = consumers.split('\n').findIndex((text) => text.includes('this consumer fails')) + 1
    await cli.waitFor(/ERROR: consumer fail failed on fail/)
    await cli.waitFor(new RegExp(`at .*fail \\(.*/consumers\\.ts:${line}:\\d+\\)`))
  })

  it('makes control characters visible in what it logs for a person', async () => {
    const hostile = 'said \\u001b[2J\\u009b31m\\r over'
    const { start } = await open({
      'consumers.ts': consumers.replace('this consumer fails', hostile),
    })
    const cli = await start('runworker').started()

    await send('fail')
    await cli.waitFor(/said \\u001b\[2J\\u009b31m\\u000d over/)

    expect(cli.stdout).not.toMatch(/(?!\n)\p{Cc}/u)
  })

  it('logs errors that consumers let go, counts them, and goes on', async () => {
    const { start } = await open()
    const cli = await start('runworker').started()

    await send('let-go')
    await cli.waitFor(/a rejection let go/)
    await cli.waitFor(/an exception let go/)
    await send('report')
    await cli.waitFor(/still at work/)
    cli.kill('SIGTERM')

    expect(await cli.ended()).toMatchObject({
      exitCode: 0,
      stdout: expect.stringContaining('stopped {"uncaughtErrors":2}'),
    })
  })

  it('goes on when nobody reads its output any more', async () => {
    const { start } = await open()
    const cli = await start('runworker').started()

    cli.process.stdout?.destroy()
    await send('report', 'fail', 'report', 'let-go')
    await expectEmpty('report', 'fail', 'let-go')
    cli.kill('SIGTERM')

    expect(await cli.ended()).toMatchObject({ exitCode: 0, stderr: '' })
  })
})

describe('a signal', () => {
  it.each(
    ['runserver', 'runwsserver', 'runworker'].flatMap((command) =>
      (['SIGTERM', 'SIGINT', 'SIGHUP'] as const).map((signal) => [command, signal] as const),
    ),
  )('ends %s in order on %s', async (command, signal) => {
    const { start } = await open()
    const cli = await start(command, ...(command === 'runworker' ? [] : unused.port)).started()

    cli.kill(signal)

    expect(await cli.ended()).toMatchObject({
      exitCode: 0,
      stdout: expect.stringContaining(`${signal}: stopping; once more stops at once`),
      stderr: '',
    })
  })

  it('closes open sockets with 1012', async () => {
    const { start } = await open()
    const cli = start('runserver', ...unused.port)
    const url = await cli.url()
    const socket = new WebSocket(url.replace('http', 'ws'), { origin: url })
    await once(socket, 'open')

    cli.kill('SIGTERM')
    const [code] = await once(socket, 'close')

    expect(code).toBe(1012)
    expect((await cli.ended()).exitCode).toBe(0)
  })

  it.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)('ends it at once when %s comes a second time', async (signal, exitCode) => {
    const { start } = await open()
    const cli = await start('runworker').started()
    await send('hang')
    await cli.waitFor(/hanging/)

    cli.kill(signal)
    await cli.waitFor(/stopping/)
    cli.kill(signal)

    expect((await cli.ended()).exitCode).toBe(exitCode)
  })

  it('names the consumers that are still running after the grace, with exit code 1', async () => {
    const { start } = await open({
      'channels.config.ts': config(sqliteUrl, 'worker: { graceMs: 200 },'),
    })
    const cli = await start('runworker').started()
    await send('hang')
    await cli.waitFor(/hanging/)

    cli.kill('SIGTERM')

    expect(await cli.ended()).toMatchObject({
      exitCode: 1,
      stdout: expect.stringContaining('consumer hang was still running on hang; it is cut off'),
    })
  })
})

async function roundTrip(url: string, text: string): Promise<string> {
  const socket = new WebSocket(url.replace('http', 'ws'), { origin: url })
  await once(socket, 'open')
  socket.send(text)
  const [data] = await once(socket, 'message')
  socket.close()
  return String(data)
}

async function expectEmpty(...channels: readonly string[]): Promise<void> {
  const backend = new SqliteBackend({ file: join(folder?.path ?? '', 'site.sqlite') })
  await expect
    .poll(
      async () => (await backend.channels()).filter(({ channel }) => channels.includes(channel)),
      {
        timeout: 10_000,
      },
    )
    .toEqual([])
  await backend.close()
}

describe('setup in a script of plain Node', () => {
  it('loads TypeScript that references name, from the working directory', async () => {
    const { path } = await open({
      'script.mjs': `import { setup } from 'channelkit'
const site = await setup({
  channelBackends: { default: { backend: 'memory:', routing: './routing.ts#channelRouting' } },
})
console.log([...(await site.routing()).keys()].join(' '))
process.exit()`,
    })

    const { stdout } = await promisify(execFile)(process.execPath, ['script.mjs'], {
      cwd: path,
      env: withoutTestRunner(process.env),
    })

    expect(stdout).toBe('http.request websocket.receive fail hang let-go report\n')
  })
})
