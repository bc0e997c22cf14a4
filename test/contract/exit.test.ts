import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'

const run = promisify(execFile)
const memory = new URL('../../src/backends/memory/index.ts', import.meta.url).href

const program = `
  import { MemoryBackend } from ${JSON.stringify(memory)}
  const backend = new MemoryBackend()
  const inbox = await backend.openInbox()
  const wait = { max: 1, waitMs: 3_600_000 }
  const waits = [backend.receive(['quiet'], wait), inbox.receive(wait)]
  await backend.send([{ channel: 'news', content: {} }])
  await backend.groupAdd([{ group: 'chat', channel: 'member' }])
  await backend.close()
  const outcomes = await Promise.allSettled(waits)
  console.log(outcomes.map(({ reason }) => reason?.code).join())
`

describe('MemoryBackend', () => {
  it('X5 lets the process end after close, its waits settled', async () => {
    const args = ['--import', 'tsx', '--input-type=module', '-e', program]

    const { stdout } = await run(process.execPath, args, { timeout: 15_000 })

    expect(stdout.trim()).toBe('ERR_BACKEND_CLOSED,ERR_BACKEND_CLOSED')
  })
})
