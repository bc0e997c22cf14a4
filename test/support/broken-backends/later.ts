import type {
  AdvanceOptions,
  HeldMessage,
  IncomingMessage,
  OutgoingMessage,
  ReceiveOptions,
  Settlement,
} from '../../../src/backends/channel-backend.ts'
import type { MemoryBackendOptions } from '../../../src/backends/memory/memory-backend.ts'
import { Backend, type Fault, storesOf } from './backend.ts'

class DeliversAtOnce extends Backend {
  override send(messages: readonly OutgoingMessage[]) {
    return super.send(
      messages.map(({ deliverAt, ...message }) =>
        deliverAt === undefined ? message : { ...message, deliverAt: this.limits.clock.now() },
      ),
    )
  }
}

class OneTimeForAll extends Backend {
  override send(messages: readonly OutgoingMessage[]) {
    const deliverAt = Math.max(...messages.map((message) => message.deliverAt ?? 0))
    return super.send(
      messages.map((message) =>
        message.deliverAt === undefined ? message : { ...message, deliverAt },
      ),
    )
  }
}

class CancelsNothing extends Backend {
  override async cancel(channel: string, ids: readonly string[]) {
    await super.cancel(channel, [])
    await super.cancel('nobody', ids)
    return ids.map((id) => this.store.later.has(`${channel} ${id}`))
  }
}

class RemembersNoNames extends Backend {
  override send(messages: readonly OutgoingMessage[]) {
    return super.send(messages.map(({ once, ...message }) => (once ? message : { ...message })))
  }
}

class TakesItsDelayedAlong extends Backend {
  override async close() {
    for (const [key, { kind }] of this.store.later) {
      if (kind === 'delayed') this.store.later.delete(key)
    }
    await super.close()
  }
}

class ExpiresBeforeItsTime extends Backend {
  override send(messages: readonly OutgoingMessage[]) {
    const expiresAt = this.limits.clock.now() + this.limits.expiryMs
    return super.send(
      messages.map((message) =>
        message.deliverAt === undefined ? message : { expiresAt, ...message },
      ),
    )
  }
}

class DelayedWithoutBound extends Backend {
  constructor(options: MemoryBackendOptions) {
    super({ ...options, ...(options.delayedCapacity !== undefined && { delayedCapacity: 1e6 }) })
  }
}

class WaitsForYears extends Backend {
  override send(messages: readonly OutgoingMessage[]) {
    const most = this.limits.clock.now() + 1e9
    return super.send(
      messages.map((message) =>
        Number(message.deliverAt) > most ? { ...message, deliverAt: most } : message,
      ),
    )
  }
}

class FlushKeepsLater extends Backend {
  override async flush() {
    const later = new Map(this.store.later)
    await super.flush()
    for (const [key, each] of later) {
      if (each.kind !== 'held') this.store.later.set(key, each)
    }
  }
}

class HoldsNothing extends Backend {
  override receive(channels: readonly string[], { hold, ...options }: ReceiveOptions) {
    return super.receive(channels, hold ? options : { ...options })
  }
}

class SettlesNothing extends Backend {
  override async settle(settlements: readonly Settlement[]) {
    const kept = new Map(this.store.later)
    const outcomes = await super.settle(settlements)
    for (const { message, next } of settlements) {
      const key = `${message.channel} /${message.hold.token}`
      const held = kept.get(key)
      if (held && !next) this.store.later.set(key, held)
    }
    return outcomes
  }
}

class RenewsNoHold extends Backend {
  override async renewHolds(messages: readonly HeldMessage[], leaseMs: number) {
    const renewed = await super.renewHolds(messages, 0)
    const expiresAt = this.limits.clock.now() + leaseMs
    return renewed.map((message) => ({ ...message, hold: { ...message.hold, expiresAt } }))
  }
}

class SettlesAndLosesNext extends Backend {
  override settle(settlements: readonly Settlement[]) {
    return super.settle(settlements.map(({ message }) => ({ message })))
  }
}

class HandsBackAndHolds extends Backend {
  override handBack(messages: readonly IncomingMessage[]) {
    return super.handBack(messages.map(({ hold, ...message }) => (hold ? message : { ...message })))
  }
}

class HeldExpire extends Backend {
  override async cleanUp() {
    const now = this.limits.clock.now()
    for (const [key, { kind, message }] of this.store.later) {
      if (kind === 'held' && message.expiresAt <= now) this.store.later.delete(key)
    }
    return super.cleanUp()
  }
}

class HoldsNoNextOfALine extends Backend {
  override advanceLines(
    turns: Parameters<Backend['advanceLines']>[0],
    { hold, ...options }: AdvanceOptions,
  ) {
    return super.advanceLines(turns, hold ? options : { ...options })
  }
}

class FlushKeepsHolds extends Backend {
  override async flush() {
    const later = new Map(this.store.later)
    await super.flush()
    for (const [key, each] of later) {
      if (each.kind === 'held') this.store.later.set(key, each)
    }
  }
}

export const laterFaults: readonly Fault[] = [
  ['delivers at once what is for later', 'D1 D2 D6 D8', storesOf(DeliversAtOnce)],
  ['delivers a batch at the time of its last', 'D2 D8', storesOf(OneTimeForAll)],
  ['says it took a message back and does not', 'D3 D7', storesOf(CancelsNothing)],
  ['forgets names that are to be remembered', 'D4', storesOf(RemembersNoNames)],
  ['takes what waits along when it closes', 'D5', storesOf(TakesItsDelayedAlong)],
  ['lets a message expire before its time', 'D6', storesOf(ExpiresBeforeItsTime)],
  ['keeps any number for later', 'D7', storesOf(DelayedWithoutBound)],
  ['takes any time', 'D8', storesOf(WaitsForYears)],
  ['keeps what waits for its time in a flush', 'D9', storesOf(FlushKeepsLater)],
  ['holds nothing', 'A1 A2 A3 A4 A5 A6 A7 A8', storesOf(HoldsNothing)],
  ['says it settled and does not', 'A2 A3', storesOf(SettlesNothing)],
  ['says it renewed a hold and does not', 'A3 A6', storesOf(RenewsNoHold)],
  ['loses what comes in the place of a message', 'A4', storesOf(SettlesAndLosesNext)],
  ['hands back and holds on', 'A5 A7', storesOf(HandsBackAndHolds)],
  ['lets held messages expire', 'A6', storesOf(HeldExpire)],
  ['holds nothing that comes by a turn', 'A7', storesOf(HoldsNoNextOfALine)],
  ['keeps holds in a flush', 'A8', storesOf(FlushKeepsHolds)],
]
