import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, readdir, rm, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import packageJson from '../../package.json' with { type: 'json' }
import { repository, withoutTestRunner } from '../support/cli.ts'

const execute = promisify(execFile)
const env = withoutTestRunner(process.env)

/** Every name that is there at run time; a change of the public interface changes this list. */
const publicNames: Readonly<Record<string, readonly string[]>> = {
  '.': [
    'Channel',
    'ChannelkitError',
    'Group',
    'Requeue',
    'Site',
    'Worker',
    'afterCommit',
    'channelSession',
    'channelSessionUser',
    'channelView',
    'content',
    'deadLetters',
    'decodeRequest',
    'decodeResponse',
    'defer',
    'defineChannels',
    'defineConfig',
    'defineRouting',
    'disconnectUser',
    'echoChannel',
    'encodeRequest',
    'encodeResponse',
    'holdSends',
    'httpSession',
    'httpSessionUser',
    'inTransaction',
    'include',
    'isChannelkitError',
    'issueTicket',
    'joinTransaction',
    'linearize',
    'logOut',
    'messageOf',
    'replayDeadLetters',
    'route',
    'sendResponse',
    'sessionKeys',
    'setup',
    'transferUser',
    'wrapConsumer',
  ],
  './memory': ['MemoryBackend', 'MemoryStore'],
  './sqlite': ['SqliteBackend'],
  './postgres': ['PostgresBackend'],
  './redis': ['RedisBackend'],
  './mysql': ['MysqlBackend'],
  './backend': ['ReplyInbox', 'decodeContent', 'encodeContent', 'laterOf', 'resolveLimits'],
  './server': ['attach', 'createHttpServer'],
  './sessions': [
    'SqliteSessionStore',
    'betterAuthUser',
    'passportUser',
    'signCookie',
    'verifyCookie',
    'withPostgresUpdates',
    'withRedisUpdates',
  ],
  './models': ['ModelBinding', 'bindSequelize', 'bindTypeorm', 'modelBinding'],
  './testing': [
    'FakeClock',
    'TestSite',
    'channelBackendClauses',
    'describeChannelBackend',
    'runClause',
  ],
}

describe('the packed package', () => {
  let folder: string
  let installed: string

  // Its dependencies are links to those installed here, so that no registry is asked.
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'channelkit-package-'))
    const pack = ['pack', '--ignore-scripts', '--json', '--pack-destination', folder]
    const { stdout } = await execute('npm', pack, { cwd: repository, env })
    const [{ filename }] = JSON.parse(stdout) as [{ filename: string }]
    await execute('tar', ['-xzf', filename], { cwd: folder })
    installed = join(folder, 'node_modules/channelkit')
    const { dependencies, optionalDependencies } = packageJson
    for (const name of Object.keys({ ...dependencies, ...optionalDependencies })) {
      const link = join(folder, 'node_modules', name)
      await mkdir(dirname(link), { recursive: true })
      await symlink(join(repository, 'node_modules', name), link)
    }
    await execute('mv', ['package', installed], { cwd: folder })
  })

  afterAll(async () => {
    await rm(folder, { recursive: true })
  })

  it('has an entry in the list for every subpath', () => {
    const subpaths = Object.keys(packageJson.exports).filter((path) => path !== './package.json')

    expect(Object.keys(publicNames)).toEqual(subpaths)
  })

  it.each(Object.entries(publicNames))('exports the names of %s', async (subpath, names) => {
    const specifier = subpath.replace(/^\./, 'channelkit')
    const script = `import * as all from '${specifier}'; console.log(JSON.stringify(Object.keys(all)))`

    const { stdout } = await execute(process.execPath, ['--input-type=module', '-e', script], {
      cwd: folder,
      env,
    })

    expect(JSON.parse(stdout)).toEqual(names)
  })

  it('runs its command line', async () => {
    const bin = join(installed, packageJson.bin.channelkit)

    const { stdout } = await execute(process.execPath, [bin, '--version'], { cwd: folder, env })

    expect(stdout).toBe(`${packageJson.version}\n`)
  })

  it('holds the build, the pages for readers, and nothing else', async () => {
    const entries = await readdir(installed)

    expect(packageJson.files).toEqual(
      expect.arrayContaining(entries.filter((entry) => entry !== 'package.json')),
    )
    expect(entries).toContain('dist')
  })
})
