import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import type { ChannelBackend } from 'channelkit/backend'
import { MysqlBackend } from 'channelkit/mysql'
import { PostgresBackend } from 'channelkit/postgres'
import { RedisBackend } from 'channelkit/redis'
import { SqliteBackend } from 'channelkit/sqlite'
import { afterAll, afterEach, describe, expect, it } from 'vitest'
import { createSiteFolder, repository, type SiteFolder } from '../support/cli.ts'
import { startProxy } from '../support/proxy.ts'
import { redisUrlIn } from '../support/redis-store.ts'
import { startMariadb, startPostgres, startRedis } from '../support/service-process.ts'

const services = [await startRedis(), await startPostgres(), await startMariadb()] as const
const [redis, postgres, mariadb] = services
const proxy = await startProxy(join(mariadb.folder, 'mariadb.sock'))

const postgresUrl = `postgres://postgres@localhost/postgres?host=${encodeURIComponent(postgres.folder)}`
const mysqlUrl = `mysql://root@127.0.0.1:${proxy.port}/site`

/** What a config says, the same store opened here, and another site's on the same server. */
interface Place {
  readonly url: (folder: string) => string
  readonly open: (folder: string) => ChannelBackend
  readonly openOther: (folder: string) => ChannelBackend
}

const places: Readonly<Record<string, Place>> = {
  SQLite: {
    url: () => 'sqlite:site.sqlite',
    open: (folder) => new SqliteBackend({ file: join(folder, 'site.sqlite') }),
    openOther: (folder) =>
      new SqliteBackend({ file: join(folder, 'site.sqlite'), tablePrefix: 'other_' }),
  },
  PostgreSQL: {
    url: () => postgresUrl,
    open: () => new PostgresBackend({ url: postgresUrl }),
    openOther: () => new PostgresBackend({ url: postgresUrl, tablePrefix: 'other_' }),
  },
  MariaDB: {
    url: () => mysqlUrl,
    open: () => new MysqlBackend({ url: mysqlUrl }),
    openOther: () => new MysqlBackend({ url: mysqlUrl, tablePrefix: 'other_' }),
  },
  Redis: {
    url: () => `${redisUrlIn(redis.folder)}?prefix=site:`,
    open: () => new RedisBackend({ url: redisUrlIn(redis.folder), prefix: 'site:' }),
    openOther: () => new RedisBackend({ url: redisUrlIn(redis.folder), prefix: 'site2:' }),
  },
}

const config = (url: string) => `import { defineConfig, defineRouting } from 'channelkit'
const routing = defineRouting({ jobs: () => new Promise(() => {}) })
export default defineConfig({
  channelBackends: { default: { backend: 'memory:' }, shared: { backend: '${url}', routing } },
  worker: { graceMs: 1 },
})
`

let folder: SiteFolder | undefined
const backends: ChannelBackend[] = []

async function open(url: string): Promise<SiteFolder> {
  folder = await createSiteFolder({ 'channels.config.ts': config(url) })
  return folder
}

function kept<Backend extends ChannelBackend>(backend: Backend): Backend {
  backends.push(backend)
  return backend
}

afterEach(async () => {
  for (const backend of backends.splice(0)) await backend.close()
  await folder?.dispose()
  folder = undefined
})

afterAll(async () => {
  await proxy.close()
  for (const service of services) await service[Symbol.asyncDispose]()
})

const strange = 'rooms \u001b[31m\n" {g:x}'

describe.each(Object.entries(places))('commands that look into %s', (_name, place) => {
  it('list channels, groups and processes, and flush this site alone', async () => {
    const site = await open(place.url(folder?.path ?? ''))
    const backend = kept(place.open(site.path))
    const other = kept(place.openOther(site.path))
    await backend.open()
    await other.open()
    const run = async (...args: string[]) => {
      const { exitCode, stdout, stderr } = await site.run(...args, '--channel-backend', 'shared')
      return { exitCode, stdout, stderr }
    }
    const listed = async (command: string) => {
      const { exitCode, stdout, stderr } = await run(command, '--json')
      expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: '' })
      return JSON.parse(stdout)
    }

    for (const command of ['channels', 'groups', 'processes']) {
      expect(await listed(command)).toEqual([])
    }

    const inbox = await backend.openInbox<string>()
    const reply = inbox.newChannel('ann')
    const memberships = [
      { group: strange, channel: reply },
      { group: 'both', channel: reply },
      { group: 'both', channel: 'jobs' },
    ]
    await backend.groupAdd(memberships)
    await other.groupAdd([{ group: 'theirs', channel: 'jobs' }])
    const messages = ['jobs', 'jobs', 'jobs', 'left-alone', reply]
    await backend.send(messages.map((channel) => ({ channel, content: {} })))
    await other.send([{ channel: 'jobs', content: { is: 'theirs' } }])
    const options = ['--concurrency', '1', '--channel-backend', 'shared']
    const worker = await site.start('runworker', ...options).started()
    for (let waiting = 3; waiting === 3; ) {
      const channels = await backend.channels()
      waiting = channels.find(({ channel }) => channel === 'jobs')?.waiting ?? 0
    }

    const processes = await listed('processes')
    const { host, pid } = processes[0]
    const consumedBy = [`${host}:${pid}`]
    expect(processes).toMatchObject([{ kind: 'worker', pid: worker.process.pid }])
    expect(processes[0].channels).toContain('jobs')
    const channels = await listed('channels')
    const some = { oldestAgeMs: expect.any(Number) }
    expect(channels).toEqual(
      expect.arrayContaining([
        { channel: 'jobs', waiting: 2, capacity: 1_000, consumedBy, ...some },
        { channel: 'left-alone', waiting: 1, capacity: 1_000, consumedBy: [], ...some },
        { channel: inbox.name, waiting: 1, capacity: 10_000, consumedBy: [], ...some },
      ]),
    )
    for (const { oldestAgeMs } of channels) expect(oldestAgeMs ?? 0).toBeLessThan(30_000)
    expect(await listed('groups')).toEqual([
      { group: 'both', members: 2 },
      { group: strange, members: 1 },
    ])

    const tables = await Promise.all(
      ['channels', 'groups', 'processes'].map((command) => run(command)),
    )
    const text = tables.map(({ stdout }) => stdout).join('')
    expect(text).toMatch(/^jobs +2 +1,000 +\d+\.\d s +\S+:\d+$/m)
    expect(text).toMatch(/^left-alone +1 +1,000 +\d+\.\d s +nobody$/m)
    expect(text).toMatch(/^rooms \\u001b\[31m\\u000a" \{g:x\} +1$/m)
    expect(text).toContain(`${host}:${pid}`)

    const refused = await run('flush')
    expect(refused).toMatchObject({ exitCode: 2, stdout: '' })
    expect(refused.stderr).toMatch(/^error: flush deletes every .*\nhint: add --yes/)
    expect(await backend.channels()).toHaveLength(3)

    const flushed = await run('flush', '--yes')
    expect(flushed).toMatchObject({ exitCode: 0, stderr: '' })
    expect(flushed.stdout).toMatch(
      /^deleted 4 messages on 3 channels, 2 groups with 3 members, 1 announcement of a process on channel backend shared \(.*\)\n$/,
    )
    expect(await backend.channels()).toEqual([])
    expect(await backend.groups()).toEqual([])
    expect(await other.groups()).toEqual([{ group: 'theirs', members: 1 }])
    const [theirs] = await other.receive(['jobs'], { max: 1, waitMs: 0 })
    expect(theirs?.content).toEqual({ is: 'theirs' })
  })
})

describe('commands that look into a backend', () => {
  it.each(['channels', 'groups', 'processes', 'flush'])(
    '%s refuses a backend inside one process',
    async (command) => {
      const site = await open('sqlite:site.sqlite')

      const { exitCode, stdout, stderr } = await site.run(command)

      expect({ exitCode, stdout }).toEqual({ exitCode: 2, stdout: '' })
      expect(stderr).toMatch(
        new RegExp(`^error: ${command} .* channel backend default \\(memory:\\) stays inside one`),
      )
    },
  )

  it.each([
    ['an unknown one', ['channels', '--channel-backend', 'gone'], 2, /no channel backend "gone"/],
    ['one that is away', ['flush', '--yes', '--channel-backend', 'shared'], 1, /backend shared: /],
  ])('name %s', async (_what, args, exitCode, message) => {
    const site = await open('redis://127.0.0.1:1')

    const result = await site.run(...args)

    expect(result).toMatchObject({ exitCode, stdout: '' })
    expect(result.stderr).toMatch(message)
  })

  it('keep what the site logs out of their output', async () => {
    const site = await open('sqlite:site.sqlite')
    const session = `session: { secret: 'a'.repeat(40), store: { get() {}, set() {}, destroy() {} } },`
    await site.write({
      'channels.config.ts': config('sqlite:site.sqlite').replace('worker:', `${session} worker:`),
    })

    const result = await site.run('groups', '--json', '--channel-backend', 'shared')

    expect(result).toMatchObject({ exitCode: 0, stdout: '[]\n' })
    expect(result.stderr).toContain('the session store has no update')
  })

  it.each([
    ['y', 0, /deleted 1 message on 1 channel/, 0],
    ['n', 1, /nothing was deleted/, 1],
    ['', 1, /nothing was deleted/, 1],
  ])('flush asks on a terminal; %j ends with %i', async (answer, exitCode, words, left) => {
    const site = await open('sqlite:site.sqlite')
    const backend = kept(new SqliteBackend({ file: join(site.path, 'site.sqlite') }))
    await backend.send([{ channel: 'jobs', content: {} }])
    const bin = join(repository, 'dist/cli/bin.js')
    const command = `${process.execPath} ${bin} flush --channel-backend shared`

    const terminal = spawn('script', ['-qec', command, '/dev/null'], { cwd: site.path })
    let output = ''
    terminal.stdout.on('data', (chunk) => {
      output += chunk
      if (/\[y\/N\]/.test(output)) terminal.stdin.end(`${answer}\n`)
    })
    const [code] = await once(terminal, 'close')

    expect(output).toContain('Delete 1 message on 1 channel, 0 groups with 0 members')
    expect(output).toMatch(words)
    expect(code).toBe(exitCode)
    expect(await backend.channels()).toHaveLength(left)
  })
})
