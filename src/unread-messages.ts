import type { ChannelBackend } from './backends/channel-backend.ts'
import { type Logger, silentLogger } from './logger.ts'

/** Backends inside this process to whose groups something was sent. */
const groupSenders = new WeakSet<ChannelBackend>()

/** Notes a send to a group, which leaves no trace where the group has no members. */
export function noteGroupSend(backend: ChannelBackend): void {
  if (!backend.supports.multipleProcesses) groupSenders.add(backend)
}

/**
 * Warns of messages that end with this process: those sent on a backend inside it, of which nobody
 * has taken any. Without a logger the warning is Node's own, on standard error.
 */
export async function warnOfUnread(
  name: string,
  backend: ChannelBackend,
  logger: Logger,
): Promise<void> {
  const { supports, counters } = backend
  if (supports.multipleProcesses || counters.get('received') > 0) return
  const lost =
    counters.get('sent') > 0
      ? await waitingChannels(backend)
      : groupSenders.has(backend)
        ? ['groups']
        : []
  if (lost.length === 0) return
  const places = lost.length > 3 ? [...lost.slice(0, 3), '…'] : lost
  const text = `what was sent to ${places.join(', ')} is lost: channel backend ${name} stays inside this process, and nobody here took it; use one that processes share, like sqlite:.channelkit/channels.sqlite`
  if (logger === silentLogger) process.emitWarning(text, 'ChannelkitWarning')
  else logger.warn({ backend: name, lost }, text)
}

/** Work channels on which something waits; none on a backend that was closed before. */
async function waitingChannels(backend: ChannelBackend): Promise<readonly string[]> {
  const channels = await backend.channels().catch(() => [])
  return channels.map(({ channel }) => channel).filter((channel) => !channel.endsWith('!'))
}
