import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { Cli, type CliResult } from '../support/cli.ts'
import { openServerUrl, type SqlPlace, sqlPlaces } from '../support/sql-places.ts'

let folder: string
let url: string
let place: SqlPlace

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'channelkit-migrate-'))
  url = await place.newUrl()
  const config = `export default { channelBackends: { default: { backend: ${JSON.stringify(url)} } } }\n`
  await writeFile(join(folder, 'channels.config.ts'), config)
})

afterEach(() => rm(folder, { recursive: true }))

function run(...args: readonly string[]): Promise<CliResult> {
  return new Cli(args, { cwd: folder, env: { NODE_ENV: 'production' } }).ended()
}

describe.each(['PostgreSQL', 'MariaDB'])('channelkit migrate on %s', (name) => {
  beforeAll(async () => {
    place = (await sqlPlaces[name]?.()) as SqlPlace
  })

  afterAll(() => place[Symbol.asyncDispose]())

  it('makes the tables that production does not make by itself', async () => {
    const before = await run('runworker')
    const migrated = await run('migrate')
    const again = await run('migrate')

    expect(before.stderr).toMatch(
      /^error: the tables \S*channelkit_message\S* and others are missing or older than schema version \d+\nhint: run "channelkit migrate", or let the backend make them with migrate: 'auto'\n$/,
    )
    expect(before.exitCode).toBe(2)
    for (const { stdout, stderr, exitCode } of [migrated, again]) {
      expect(stderr).toBe('')
      expect(stdout).toMatch(/^channel backend default \(.*\): its tables are up to date\n$/)
      expect(exitCode).toBe(0)
    }
    const backend = openServerUrl(url, { migrate: 'manual' })
    expect(await backend.send([{ channel: 'news', content: {} }])).toEqual([])
    await backend.close()
  })
})
