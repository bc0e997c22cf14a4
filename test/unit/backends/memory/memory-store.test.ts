import { describe, expect, it } from 'vitest'
import { Queue } from '../../../../src/backends/memory/memory-store.ts'

describe('Queue', () => {
  it('looks at no item for expired ones while none has expired', () => {
    let looks = 0
    const queue = new Queue()
    for (let index = 0; index < 1_000; index++) {
      const expiresAt = 1_000 + index
      queue.push({
        bytes: 1,
        get expiresAt() {
          looks++
          return expiresAt
        },
      })
    }
    looks = 0

    for (let round = 0; round < 100; round++) expect(queue.dropExpired(999)).toBe(0)
    expect(looks).toBe(0)
    expect(queue.dropExpired(1_000)).toBe(1)
    queue.dropExpired(1_000)
    looks = 0

    for (let round = 0; round < 100; round++) expect(queue.dropExpired(1_000)).toBe(0)
    expect(looks).toBe(0)
  })

  it('drops what has expired behind what has not', () => {
    const queue = new Queue()
    for (const expiresAt of [20, 10, 30, 10]) queue.push({ expiresAt, bytes: 1 })

    expect(queue.dropExpired(10)).toBe(2)
    expect([...queue].map(({ expiresAt }) => expiresAt)).toEqual([20, 30])
  })

  it('knows its places and bytes through every change', () => {
    const queue = new Queue()
    const figures = () => [queue.size, queue.places, queue.bytes]
    queue.push({ expiresAt: 1, bytes: 5 })
    queue.push({ expiresAt: Number.POSITIVE_INFINITY, bytes: 0 })
    queue.insert({ expiresAt: 1, bytes: 7 }, () => true)
    queue.insertFromTail({ expiresAt: 2, bytes: 11 }, () => false)
    expect(figures()).toEqual([4, 3, 23])

    queue.shift()
    expect(figures()).toEqual([3, 2, 18])
    queue.filter(({ bytes }) => bytes !== 7)
    expect(figures()).toEqual([2, 1, 11])
  })
})
