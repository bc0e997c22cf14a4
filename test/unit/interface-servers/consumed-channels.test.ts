import { MemoryBackend } from 'channelkit/memory'
import { FakeClock } from 'channelkit/testing'
import { describe, expect, it } from 'vitest'
import { ConsumedChannels } from '../../../src/interface-servers/consumed-channels.ts'
import { silentLogger } from '../../../src/logger.ts'

function newConsumed() {
  const clock = new FakeClock()
  const backend = new MemoryBackend({ clock })
  const announce = (id: string, channels: string[], kind: 'worker' | 'interface' = 'worker') =>
    backend.announce({ id, kind, host: 'here', pid: 1, startedAt: 0, channels }, 10_000)
  return { clock, backend, announce, consumed: new ConsumedChannels(backend, silentLogger) }
}

describe('ConsumedChannels', () => {
  it('knows the channels of the workers that live', async () => {
    const { clock, announce, consumed } = newConsumed()
    await announce('first', ['a', 'b'])
    await announce('second', ['b', 'c'])
    await announce('server', ['d'], 'interface')

    await consumed.start()
    const before = ['a', 'b', 'c', 'd'].map((channel) => consumed.isConsumed(channel))
    await clock.advance(5_000)
    await announce('second', ['b', 'c'])
    await clock.advance(7_000)

    expect(before).toEqual([true, true, true, false])
    expect(['a', 'b', 'c'].map((channel) => consumed.isConsumed(channel))).toEqual([
      false,
      true,
      true,
    ])
    consumed.stop()
  })

  it('has events sent rather than dropped while a new worker may not be noticed yet', async () => {
    const { clock, announce, consumed } = newConsumed()
    await announce('old', ['a'])
    await consumed.start()
    const justAfter = consumed.isWorthSending('b')
    await clock.advance(1_000)
    await announce('new', ['b'])

    const meanwhile = consumed.isWorthSending('b')
    await clock.advance(1)

    expect([justAfter, meanwhile, consumed.isWorthSending('b')]).toEqual([false, true, true])
    expect(consumed.isAbandoned('b')).toBe(false)
    consumed.stop()
  })

  it('notices a worker that comes and goes within two seconds', async () => {
    const { clock, backend, announce, consumed } = newConsumed()
    await consumed.start()

    await announce('first', ['a'])
    await clock.advance(2_000)
    expect(consumed.isConsumed('a')).toBe(true)
    await backend.withdraw('first')
    await clock.advance(2_000)

    expect(consumed.isConsumed('a')).toBe(false)
    consumed.stop()
  })

  describe('.isWorthSending()', () => {
    it('is true of every channel where no worker was ever seen', async () => {
      const { consumed } = newConsumed()

      await consumed.start()

      expect(consumed.isWorthSending('anything')).toBe(true)
      consumed.stop()
    })

    it('is false of a channel that the workers do not consume', async () => {
      const { announce, consumed } = newConsumed()
      await announce('first', ['a'])

      await consumed.start()

      expect(consumed.isWorthSending('a')).toBe(true)
      expect(consumed.isWorthSending('b')).toBe(false)
      consumed.stop()
    })

    it('stays true for an expiry after its last worker left, so that a restart loses nothing', async () => {
      const { clock, backend, announce, consumed } = newConsumed()
      await announce('first', ['a'])
      await consumed.start()
      await backend.withdraw('first')
      await clock.advance(2_000)
      await announce('other', ['b'])
      await clock.advance(2_000)

      expect(consumed.isWorthSending('a')).toBe(true)
      for (let round = 0; round < 10; round++) {
        await announce('other', ['b'])
        await clock.advance(6_000)
      }

      expect(consumed.isWorthSending('a')).toBe(false)
      expect(consumed.isWorthSending('b')).toBe(true)
      consumed.stop()
    })
  })

  describe('.awaitConsumer()', () => {
    it('resolves true as soon as a worker consumes the channel', async () => {
      const { clock, announce, consumed } = newConsumed()
      const startedAt = clock.now()
      let waitedMs = Number.NaN

      const waiting = consumed.awaitConsumer('a', 5_000).then((isThere) => {
        waitedMs = clock.now() - startedAt
        return isThere
      })
      await clock.advance(1_000)
      await announce('first', ['a'])
      await clock.advance(1_000)

      expect(await waiting).toBe(true)
      expect(waitedMs).toBeLessThanOrEqual(1_400)
    })

    it('resolves false when none came in time', async () => {
      const { clock, consumed } = newConsumed()

      const waiting = consumed.awaitConsumer('a', 5_000)
      await clock.advance(5_000)

      expect(await waiting).toBe(false)
    })
  })

  it('keeps what it knew while the backend cannot be asked', async () => {
    const { clock, backend, announce, consumed } = newConsumed()
    await announce('first', ['a'])
    await consumed.start()

    await backend.close()
    await clock.advance(20_000)

    expect(consumed.isConsumed('a')).toBe(true)
    consumed.stop()
  })
})
