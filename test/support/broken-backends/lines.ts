import type {
  AdvanceOptions,
  IncomingMessage,
  LineTurn,
  ReceiveOptions,
} from '../../../src/backends/channel-backend.ts'
import type { MemoryBackendOptions } from '../../../src/backends/memory/memory-backend.ts'
import { Backend, type Fault, storesOf } from './backend.ts'

class ReceivesWithoutLines extends Backend {
  override receive(channels: readonly string[], { lines, ...options }: ReceiveOptions) {
    return super.receive(channels, lines ? options : { ...options })
  }
}

class OneLineAtATime extends Backend {
  override receive(channels: readonly string[], options: ReceiveOptions) {
    return super.receive(channels, options.lines ? { ...options, max: 1 } : options)
  }
}

class PassesEveryTurnOn extends Backend {
  override advanceLines(turns: readonly LineTurn[], options: AdvanceOptions) {
    return super.advanceLines(turns, { ...options, channels: [] })
  }
}

class NewestFirst extends Backend {
  override advanceLines(turns: readonly LineTurn[], options: AdvanceOptions) {
    for (const { parked } of this.store.lines.values()) {
      const messages = [...parked].reverse()
      parked.filter(() => false)
      for (const message of messages) parked.push(message)
    }
    return super.advanceLines(turns, options)
  }
}

class TurnsNeverLapse extends Backend {
  override receive(channels: readonly string[], options: ReceiveOptions) {
    const { lines } = options
    return super.receive(
      channels,
      lines ? { ...options, lines: { ...lines, leaseMs: 1e9 } } : options,
    )
  }
}

class AdvancesByAnyToken extends Backend {
  override advanceLines(turns: readonly LineTurn[], options: AdvanceOptions) {
    return super.advanceLines(
      turns.map((turn) => ({
        ...turn,
        token: this.store.lines.get(turn.line)?.token ?? turn.token,
      })),
      options,
    )
  }
}

class RenewsForNoTime extends Backend {
  override async renewLines(turns: readonly LineTurn[], leaseMs: number) {
    const expiresAt = this.limits.clock.now() + leaseMs
    return turns
      .filter(({ line, token }) => this.store.lines.get(line)?.token === token)
      .map((turn) => ({ ...turn, expiresAt }))
  }
}

class HandsOverAnyChannel extends Backend {
  override advanceLines(turns: readonly LineTurn[], options: AdvanceOptions) {
    return super.advanceLines(turns, {
      ...options,
      channels: ['connect', 'receive', 'disconnect'],
    })
  }
}

class LooksNowhereElse extends Backend {
  override receive(channels: readonly string[], options: ReceiveOptions) {
    const { lines } = options
    return super.receive(
      channels,
      lines ? { ...options, lines: { ...lines, elsewhere: [] } } : options,
    )
  }
}

class HandsBackWithoutTurn extends Backend {
  override handBack(messages: readonly IncomingMessage[]) {
    return super.handBack(messages.map(({ turn, ...message }) => (turn ? message : { ...message })))
  }
}

class ParkedNeverExpire extends Backend {
  override advanceLines(turns: readonly LineTurn[], options: AdvanceOptions) {
    for (const { parked } of this.store.lines.values()) {
      for (const message of parked) Object.assign(message, { expiresAt: 1e15 })
    }
    return super.advanceLines(turns, options)
  }
}

class LinesWithoutBound extends Backend {
  constructor(options: MemoryBackendOptions) {
    super({ ...options, ...(options.lineCapacity !== undefined && { lineCapacity: 1e6 }) })
  }
}

class FlushKeepsLines extends Backend {
  override async flush() {
    const lines = new Map(this.store.lines)
    await super.flush()
    for (const [name, line] of lines) this.store.lines.set(name, line)
  }
}

class WaitsForTakenHead extends Backend {
  override async receive(channels: readonly string[], options: ReceiveOptions) {
    const taken = await super.receive(channels, options)
    for (const line of this.store.lines.values()) {
      if (taken.some(({ id, turn }) => !turn && id === line.ready?.id)) line.ready = undefined
    }
    return taken
  }
}

export const lineFaults: readonly Fault[] = [
  [
    'receives as if there were no lines',
    'A7 L1 L2 L3 L4 L5 L6 L7 L8 L9 L10 L11 L12',
    storesOf(ReceivesWithoutLines),
  ],
  ['gives one line at a time', 'A7 L2 L7 L9 L10 L11 L12', storesOf(OneLineAtATime)],
  ['passes every turn on to others', 'A7 L3 L4 L5 L7 L9 L10', storesOf(PassesEveryTurnOn)],
  ['gives the newest of a line first', 'A7 L3 L6 L7 L9 L10 L12', storesOf(NewestFirst)],
  ['lets no turn lapse', 'L4 L8 L12', storesOf(TurnsNeverLapse)],
  ['passes a turn on whatever its token', 'L4', storesOf(AdvancesByAnyToken)],
  ['says it renewed a turn and does not', 'L5', storesOf(RenewsForNoTime)],
  ['gives the next message to whoever asks', 'A7 L6 L7 L9 L12', storesOf(HandsOverAnyChannel)],
  ['does not look at the channels of others', 'L7', storesOf(LooksNowhereElse)],
  ['hands back and keeps the turn', 'L8', storesOf(HandsBackWithoutTurn)],
  ['gives expired messages of a line', 'L9 L11', storesOf(ParkedNeverExpire)],
  ['lets one line fill its channel', 'L10', storesOf(LinesWithoutBound)],
  ['keeps lines in a flush', 'L11', storesOf(FlushKeepsLines)],
  ['waits for a message that was taken', 'L12', storesOf(WaitsForTakenHead)],
]
