import { join } from 'node:path'
import { deadLetters } from 'channelkit'
import { SqliteBackend } from 'channelkit/sqlite'
import { afterEach, expect, it } from 'vitest'
import { createSiteFolder, type SiteFolder } from '../support/cli.ts'

const config = `import { existsSync } from 'node:fs'
import { content, defineChannels, defineConfig, defineRouting } from 'channelkit'
const channels = defineChannels({
  invoices: content({ acknowledge: 'afterRun', maxAttempts: 2, retryDelayMs: 20, deadLetterChannel: 'morgue' }),
})
const routing = defineRouting({
  invoices: ({ content }) => {
    if (!existsSync('mended')) throw new RangeError('no printer for ' + content.order)
    console.log('printed ' + content.order)
  },
})
export default defineConfig({
  channels,
  channelBackends: { default: { backend: 'sqlite:site.sqlite', routing } },
})
`

let site: SiteFolder | undefined

afterEach(async () => {
  await site?.dispose()
  site = undefined
})

it('channelkit dead-letters lists what was given up, and has it run again', async () => {
  site = await createSiteFolder({ 'channels.config.ts': config })
  const { path } = site
  await using backend = Object.assign(new SqliteBackend({ file: join(path, 'site.sqlite') }), {
    async [Symbol.asyncDispose]() {
      await backend.close()
    },
  })
  const bytes = new Uint8Array([1, 2])
  const worker = await site.start('runworker').started()
  // One after the other: the times of further tries are spread at random.
  for (const content of [{ order: 1, bytes }, { order: 2 }]) {
    await backend.send([{ channel: 'invoices', content }])
    for (let waiting = 0; waiting < content.order; ) {
      const channels = await backend.channels()
      waiting = channels.find(({ channel }) => channel === 'morgue')?.waiting ?? 0
    }
  }

  const listed = await site.run('dead-letters', 'invoices')
  expect(listed.exitCode).toBe(0)
  expect(listed.stdout).toMatch(
    /^failed at +attempts +error +content\n[\d-]+T[\d:.]+Z +2 +RangeError: no printer for 1 +\{"order":1,"bytes":"AQI="\}\n/,
  )
  const json = JSON.parse((await site.run('dead-letters', 'invoices', '--json')).stdout)
  expect(json).toMatchObject([
    { channel: 'invoices', attempts: 2, error: { name: 'RangeError' }, content: { order: 1 } },
    { channel: 'invoices', attempts: 2, content: { order: 2 } },
  ])
  const wrong = await site.run('dead-letters', 'invoices', '--max', 'many')
  expect(wrong.stderr).toContain('--max is "many"')

  await site.write({ mended: '' })
  const replayed = await site.run('dead-letters', 'invoices', '--replay', '--max', '1')
  expect(replayed.stdout).toBe('sent 1 again to invoices\n')
  await worker.waitFor(/printed 1/)
  expect((await site.run('dead-letters', 'invoices', '--replay', '--json')).stdout).toContain(
    '"replayed": 1',
  )
  await worker.waitFor(/printed 2/)
  expect(await deadLetters('invoices', { backend })).toEqual([])
  expect((await site.run('dead-letters', 'invoices')).stdout).toBe('invoices has no dead letters\n')
})
