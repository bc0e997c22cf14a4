import type { ChannelBackend } from './backends/channel-backend.ts'
import type { Logger } from './logger.ts'

/** Drops that point at a fault of the site's set-up, or at somebody else in its backend. */
const warnings = {
  'dropped.undecryptable':
    'was not encrypted with a key of this process for the place where it lay; give every process the same encryption.keys, and see who else can write to the backend',
  'dropped.invalid':
    'could not be decoded; run the same version of Channelkit everywhere, with the same encryption',
} as const

const quietMs = 60_000

/** Logs such drops of a backend: the first at once, further ones at most once a minute. */
export function warnOfDrops(name: string, backend: ChannelBackend, logger: Logger): void {
  const { counters, limits } = backend
  for (const [counter, meaning] of Object.entries(warnings)) {
    let quietUntil = Number.NEGATIVE_INFINITY
    counters.onAdd(counter, () => {
      const now = limits.clock.elapsed()
      if (now < quietUntil) return
      quietUntil = now + quietMs
      logger.warn(
        { backend: name, [counter]: counters.get(counter) },
        `a message on channel backend ${name} is dropped: it ${meaning}`,
      )
    })
  }
}
