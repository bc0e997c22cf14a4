import { FakeClock } from 'channelkit/testing'
import { describe, expect, it } from 'vitest'
import { repeat, systemClock } from '../../../src/internal/clock.ts'

describe('systemClock', () => {
  it('shows the time of the machine and runs what is scheduled', async () => {
    const before = Date.now()

    await new Promise<void>((resolve) => systemClock.schedule(resolve, 1))

    expect(systemClock.now()).toBeGreaterThanOrEqual(before)
  })

  it('runs nothing at once that is due in years', async () => {
    const runs: string[] = []
    const cancel = systemClock.schedule(() => runs.push('early'), 1e12)

    await new Promise<void>((resolve) => systemClock.schedule(resolve, 5))
    cancel()

    expect(runs).toEqual([])
  })
})

describe('repeat', () => {
  it('runs the task at every interval until it is stopped, also by the task itself', async () => {
    const clock = new FakeClock(0)
    const times: number[] = []
    const stop = repeat(
      clock,
      () => {
        times.push(clock.now())
        if (times.length === 3) stop()
      },
      10,
    )

    await clock.advance(100)

    expect(times).toEqual([10, 20, 30])
    expect(clock.scheduledCount).toBe(0)
  })
})
