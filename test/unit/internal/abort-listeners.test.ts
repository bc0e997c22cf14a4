import { describe, expect, it } from 'vitest'
import { onAbort } from '../../../src/internal/abort-listeners.ts'

describe('onAbort', () => {
  it('calls every listener that is still there when the signal aborts, once', () => {
    const controller = new AbortController()
    const calls: string[] = []
    onAbort(controller.signal, () => calls.push('first'))
    const forget = onAbort(controller.signal, () => calls.push('second'))
    onAbort(controller.signal, () => calls.push('third'))

    forget()
    controller.abort()
    controller.abort()

    expect(calls).toEqual(['first', 'third'])
  })

  it('keeps the listeners of two signals apart', () => {
    const [one, other] = [new AbortController(), new AbortController()]
    const calls: string[] = []
    onAbort(one.signal, () => calls.push('one'))
    onAbort(other.signal, () => calls.push('other'))

    other.abort()

    expect(calls).toEqual(['other'])
  })
})
