import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'

const run = promisify(execFile)
const testing = new URL('../../../src/testing/index.ts', import.meta.url).href

const program = `
  import { channelBackendClauses, describeChannelBackend } from ${JSON.stringify(testing)}
  try {
    describeChannelBackend('MyBackend', async () => {})
  } catch (error) {
    console.log(channelBackendClauses.length > 0, error.message)
  }
`

describe('describeChannelBackend', () => {
  it('names the way out when it is called outside Vitest, where the rest can be used', async () => {
    const { VITEST: _vitest, ...env } = process.env
    const args = ['--import', 'tsx', '--input-type=module', '-e', program]

    const { stdout } = await run(process.execPath, args, { env, timeout: 9_000 })

    expect(stdout.trim()).toBe(
      'true describeChannelBackend runs inside Vitest; start it with vitest, or call runClause for each of channelBackendClauses',
    )
  })
})
