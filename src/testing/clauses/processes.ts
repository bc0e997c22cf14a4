import assert from 'node:assert/strict'
import type { ChannelBackend } from '../../backends/channel-backend.ts'
import type { Clause } from '../clause.ts'
import { processInfo } from './steps.ts'

async function announced(backend: ChannelBackend): Promise<string[]> {
  return (await backend.processes()).map(({ id }) => id).sort()
}

export const processClauses: readonly Clause[] = [
  {
    id: 'P1',
    promise: 'shows an announced process to every process until its lease ends or is renewed',
    async check({ open, clock }) {
      const first = await open()
      const second = await open()
      assert.deepEqual(await first.processes(), [])
      await first.announce(processInfo('worker.1'), 1_000)
      await second.announce(processInfo('worker.2'), 3_000)

      await clock.advance(999)
      assert.deepEqual(await announced(first), ['worker.1', 'worker.2'])
      assert.deepEqual(await announced(second), ['worker.1', 'worker.2'])
      await first.announce(processInfo('worker.1'), 1_000)
      await clock.advance(999)
      assert.deepEqual(await announced(second), ['worker.1', 'worker.2'])
      await clock.advance(1)
      assert.deepEqual(await announced(second), ['worker.2'])
      await clock.advance(1_001)

      assert.deepEqual(await announced(first), [])
    },
  },
  {
    id: 'P2',
    promise: 'takes back an announcement, and passes over one that is not there',
    async check({ open }) {
      const first = await open()
      const second = await open()
      await first.announce(processInfo('worker.1'), 1_000)
      await first.announce(processInfo('worker.2'), 1_000)

      await second.withdraw('worker.1')
      await first.withdraw('worker.1')
      await first.withdraw('unknown')

      assert.deepEqual(await announced(first), ['worker.2'])
    },
  },
  {
    id: 'P3',
    promise: 'keeps every field as last announced, whatever becomes of the announced object',
    async check({ open }) {
      const first = await open()
      const second = await open()
      const channels = ['http.request']
      const server = processInfo('server', { kind: 'interface', channels: [], host: 'höst 😀' })
      await first.announce(processInfo('worker', { pid: 1, channels: ['old'] }), 1_000)
      await first.announce(processInfo('worker', { channels }), 1_000)
      await second.announce(server, 1_000)
      channels.push('later')

      const byId = new Map((await second.processes()).map((info) => [info.id, info]))

      assert.equal(byId.size, 2)
      assert.deepEqual(byId.get('worker'), processInfo('worker', { channels: ['http.request'] }))
      assert.deepEqual(byId.get('server'), server)
    },
  },
]
