import { FakeClock } from 'channelkit/testing'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'

describe('FakeClock', () => {
  it('stands still until it is advanced', async () => {
    const clock = new FakeClock(1_000)
    expect(clock.now()).toBe(1_000)

    await clock.advance(250)

    expect(clock.now()).toBe(1_250)
  })

  describe('.advance()', () => {
    it('runs what falls due in order of time, and of scheduling at the same time', async () => {
      const clock = new FakeClock(0)
      const runs: [string, number][] = []
      const note = (name: string) => () => runs.push([name, clock.now()])
      clock.schedule(note('third'), 20)
      clock.schedule(note('first'), 10)
      clock.schedule(note('second'), 10)
      clock.schedule(note('later'), 31)

      await clock.advance(30)

      expect(runs).toEqual([
        ['first', 10],
        ['second', 10],
        ['third', 20],
      ])
      expect(clock.now()).toBe(30)
      expect(clock.scheduledCount).toBe(1)
    })

    it('runs calls that a call schedules within the time', async () => {
      const clock = new FakeClock(0)
      const times: number[] = []
      const again = (): void => {
        times.push(clock.now())
        clock.schedule(again, 10)
      }
      clock.schedule(again, 10)

      await clock.advance(35)

      expect(times).toEqual([10, 20, 30])
    })

    it('lets promises settle before, between and after the calls', async () => {
      const clock = new FakeClock(0)
      const steps: string[] = []
      const afterPromises = async (step: string): Promise<void> => {
        for (let turn = 0; turn < 20; turn++) await Promise.resolve()
        steps.push(step)
      }
      void afterPromises('before').then(() => clock.schedule(() => steps.push('scheduled'), 5))
      clock.schedule(() => void afterPromises('first'), 10)
      clock.schedule(() => void afterPromises('second'), 11)

      await clock.advance(20)

      expect(steps).toEqual(['before', 'scheduled', 'first', 'second'])
    })

    it('never shows a time before the one it showed', async () => {
      await fc.assert(
        fc.asyncProperty(
          fc.array(fc.nat(100), { maxLength: 20 }),
          fc.array(fc.nat(50), { maxLength: 5 }),
          async (delays, advances) => {
            const clock = new FakeClock(0)
            const times: number[] = []
            for (const delay of delays) clock.schedule(() => times.push(clock.now()), delay)

            for (const ms of advances) await clock.advance(ms)

            const end = advances.reduce((sum, ms) => sum + ms, 0)
            const due = delays.filter((delay) => delay <= end).sort((a, b) => a - b)
            expect(times).toEqual(advances.length === 0 ? [] : due)
          },
        ),
        { numRuns: 50 },
      )
    })

    it.each([-1, Number.NaN, Number.POSITIVE_INFINITY])('rejects %s ms', async (ms) => {
      await expect(new FakeClock().advance(ms)).rejects.toThrow(RangeError)
    })
  })

  describe('.schedule()', () => {
    it('never runs a call that was cancelled, at whatever time', async () => {
      const clock = new FakeClock(0)
      const runs: string[] = []
      const cancel = clock.schedule(() => runs.push('cancelled'), 10)
      clock.schedule(cancel, 5)
      clock.schedule(() => runs.push('never due'), Number.POSITIVE_INFINITY)

      await clock.advance(1_000)
      cancel()

      expect(runs).toEqual([])
      expect(clock.scheduledCount).toBe(1)
    })
  })
})
