import type { OutgoingMessage, ProcessInfo } from '../../../src/backends/channel-backend.ts'
import type { MemoryBackendOptions } from '../../../src/backends/memory/memory-backend.ts'
import { Counters } from '../../../src/internal/counters.ts'
import { Backend, type Fault, storesOf } from './backend.ts'

class LeaseNeverEnds extends Backend {
  override announce(info: ProcessInfo) {
    return super.announce(info, 1e9)
  }
}

class WithdrawsNothing extends Backend {
  override async withdraw(id: string) {
    if (this.store.processes.size === 0) await super.withdraw(id)
  }
}

class AnnouncesByReference extends Backend {
  override async announce(info: ProcessInfo, leaseMs: number) {
    await super.announce(info, leaseMs)
    const expiresAt = this.limits.clock.now() + leaseMs
    this.store.processes.set(info.id, { info, expiresAt })
  }
}

class CountsRejectedAsSent extends Backend {
  override async send(messages: readonly OutgoingMessage[]) {
    const failures = await super.send(messages)
    this.counters.add('sent', failures.length)
    return failures
  }
}

class DropCounterSilent extends Counters {
  override add(name: string, by?: number) {
    if (!name.startsWith('dropped.')) super.add(name, by)
  }
}

class DropsInSilence extends Backend {
  override readonly counters = new DropCounterSilent()
}

class ListsOneChannel extends Backend {
  override async channels() {
    return (await super.channels()).slice(0, 1)
  }
}

class ListsInboxesWithoutMessages extends Backend {
  override async channels() {
    const infos = await super.channels()
    const listed = new Set(infos.map(({ channel }) => channel))
    const others = [...this.store.inboxes].filter(
      ([channel, queue]) => queue.size > 0 && !listed.has(channel),
    )
    return [
      ...infos,
      ...others.map(([channel, queue]) => ({
        channel,
        waiting: queue.size,
        oldestExpiresAt: Number.POSITIVE_INFINITY,
      })),
    ]
  }
}

class CountsOneMember extends Backend {
  override async groups() {
    return (await super.groups()).map(({ group }) => ({ group, members: 1 }))
  }
}

class CapabilitiesByProcess extends Backend {
  constructor(options: MemoryBackendOptions) {
    super(options)
    Object.assign(this, { supports: { ...this.supports } })
  }
}

export const processAndFigureFaults: readonly Fault[] = [
  ['never ends a lease', 'P1', storesOf(LeaseNeverEnds)],
  ['withdraws nothing', 'P2', storesOf(WithdrawsNothing)],
  ['keeps an announcement by reference', 'P3', storesOf(AnnouncesByReference)],
  ['counts what it rejects as sent', 'D7 S1', storesOf(CountsRejectedAsSent)],
  ['drops in silence', 'C18 D7 A1 G6 R4 R11 L9 L10 S2', storesOf(DropsInSilence)],
  ['lists one channel', 'S3', storesOf(ListsOneChannel)],
  ['lists inboxes without messages', 'S3', storesOf(ListsInboxesWithoutMessages)],
  ['counts one member for each group', 'S4', storesOf(CountsOneMember)],
  ['leaves its capabilities open to change', 'S5', storesOf(CapabilitiesByProcess)],
]
