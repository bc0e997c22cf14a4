import type { ProcessInfo } from '../backends/channel-backend.ts'
import { isReplyChannel } from '../names.ts'
import { printTable, shownDuration } from './print-table.ts'
import { type BackendCommandOptions, printJson, withSharedBackend } from './shared-backend.ts'

/** One channel, as `channelkit channels --json` prints it. */
interface ChannelRow {
  readonly channel: string
  readonly waiting: number
  /** Milliseconds since the oldest was sent; null when nothing waits. */
  readonly oldestAgeMs: number | null
  readonly capacity: number
  /** Workers, as `HOST:PID`. */
  readonly consumedBy: readonly string[]
}

/** `channelkit channels`: what waits on channels and in inboxes, and who consumes them. */
export function showChannels(options: BackendCommandOptions): Promise<number> {
  return withSharedBackend(options, 'channels', async (backend) => {
    const [waiting, processes] = [await backend.channels(), await backend.processes()]
    const { limits } = backend
    const now = limits.clock.now()
    const found = new Map(waiting.map((info) => [info.channel, info]))
    const names = new Set([...found.keys(), ...processes.flatMap(({ channels }) => channels)])
    const rows: ChannelRow[] = [...names].sort().map((channel) => {
      const info = found.get(channel)
      const isInbox = channel.endsWith('!') || isReplyChannel(channel)
      return {
        channel,
        waiting: info?.waiting ?? 0,
        oldestAgeMs: info ? Math.max(0, now + limits.expiryMs - info.oldestExpiresAt) : null,
        capacity: isInbox ? limits.inboxCapacity : limits.capacityOf(channel),
        consumedBy: processes
          .filter(({ channels }) => channels.includes(channel))
          .map(shownProcess),
      }
    })
    if (options.json) printJson(rows)
    else if (rows.length === 0) process.stdout.write('nothing waits, and no worker listens\n')
    else {
      printTable(
        ['channel', 'waiting', 'capacity', 'oldest', 'consumed by'],
        rows.map(({ channel, waiting, oldestAgeMs, capacity, consumedBy }) => [
          channel,
          waiting,
          capacity,
          oldestAgeMs === null ? '-' : shownDuration(oldestAgeMs),
          consumedBy.join(', ') || (channel.endsWith('!') ? 'its interface server' : 'nobody'),
        ]),
      )
    }
    return 0
  })
}

/** How a process is called among others. */
export function shownProcess({ host, pid }: ProcessInfo): string {
  return `${host}:${pid}`
}
