import { FakeClock } from 'channelkit/testing'
import { describe, expect, it } from 'vitest'
import type { BackendOptions } from '../../../src/backends/channel-backend.ts'
import { resolveLimits } from '../../../src/backends/limits.ts'
import { systemClock } from '../../../src/internal/clock.ts'

describe('resolveLimits', () => {
  it('fills in the defaults', () => {
    const { capacityOf, ...limits } = resolveLimits()

    expect(limits).toEqual({
      capacity: 1_000,
      inboxCapacity: 10_000,
      lineCapacity: 100,
      delayedCapacity: 10_000,
      expiryMs: 60_000,
      groupExpiryMs: 60_000,
      maxContentBytes: 1_048_576,
      clock: systemClock,
    })
    expect(capacityOf('any')).toBe(1_000)
  })

  it('keeps what is given, frozen', () => {
    const clock = new FakeClock()

    const limits = resolveLimits({ capacity: 1, expiryMs: 2, channelCapacity: [['a', 3]], clock })

    expect(limits).toMatchObject({ capacity: 1, expiryMs: 2, clock })
    expect([limits.capacityOf('a'), limits.capacityOf('b')]).toEqual([3, 1])
    expect(Object.isFrozen(limits)).toBe(true)
  })

  it.each([
    'capacity',
    'inboxCapacity',
    'lineCapacity',
    'expiryMs',
    'groupExpiryMs',
    'maxContentBytes',
  ])('rejects a %s that is not a whole number from 1', (name) => {
    for (const value of [0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, '100']) {
      const options: BackendOptions = { [name]: value }
      expect(() => resolveLimits(options)).toThrow(
        expect.objectContaining({
          code: 'ERR_INVALID_CONFIG',
          message: expect.stringMatching(new RegExp(`^${name} is .*; give a whole number from 1$`)),
        }),
      )
    }
  })

  it('rejects an option that is misspelt, by name', () => {
    const options: BackendOptions = { capacity: 1, ...{ expiry: 5 } }

    expect(() => resolveLimits(options)).toThrow(
      expect.objectContaining({
        code: 'ERR_INVALID_CONFIG',
        message: expect.stringMatching(/unknown option "expiry", which is 5; .*expiryMs/),
      }),
    )
  })
})
