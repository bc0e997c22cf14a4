import assert from 'node:assert/strict'
import type {
  ChannelBackend,
  Delivery,
  Inbox,
  IncomingMessage,
  OutgoingMessage,
  ProcessInfo,
  SendFailure,
} from '../../backends/channel-backend.ts'
import type { Content } from '../../content.ts'
import { type ErrorCode, isChannelkitError } from '../../errors.ts'
import { systemClock } from '../../internal/clock.ts'
import type { FakeClock } from '../fake-clock.ts'

/** More than any clause stores, so that one receive takes everything. */
const everything = 10_000

/** Messages `{ n }` for one channel. */
export function numbered(channel: string, ...numbers: readonly number[]): OutgoingMessage[] {
  return numbers.map((n) => ({ channel, content: { n } }))
}

/** The whole numbers from `first` to `last`. */
export function range(first: number, last: number): number[] {
  return Array.from({ length: last - first + 1 }, (_, index) => first + index)
}

/** Sends, and insists that everything is stored. */
export async function send(
  backend: ChannelBackend,
  messages: readonly OutgoingMessage[],
): Promise<void> {
  assert.deepEqual(await backend.send(messages), [])
}

/** Sends `{ n }` to a group, and insists that there is no failure. */
export async function sendToGroup(
  backend: ChannelBackend,
  group: string,
  ...numbers: readonly number[]
): Promise<void> {
  assert.deepEqual(await backend.groupSend(numbers.map((n) => ({ group, content: { n } }))), [])
}

/** Takes what waits on one channel, without waiting. */
export function take(
  backend: ChannelBackend,
  channel: string,
  max = everything,
): Promise<readonly IncomingMessage[]> {
  return backend.receive([channel], { max, waitMs: 0 })
}

/** Takes what waits on one channel and tells the `n` of each message. */
export async function takeNumbers(
  backend: ChannelBackend,
  channel: string,
  max = everything,
): Promise<unknown[]> {
  return numbersOf(await take(backend, channel, max))
}

/** The `n` of each message. */
export function numbersOf(messages: readonly { readonly content: Content }[]): unknown[] {
  return messages.map(({ content }) => content.n)
}

/** Takes what waits in an inbox, without waiting. */
export function drain<Owner>(inbox: Inbox<Owner>): Promise<readonly Delivery<Owner>[]> {
  return inbox.receive({ max: everything, waitMs: 0 })
}

/** Waits for deliveries; a receive that only brought changes of membership is not the end. */
export async function nextDeliveries<Owner>(
  inbox: Inbox<Owner>,
  signal?: AbortSignal,
): Promise<readonly Delivery<Owner>[]> {
  const options = { max: everything, waitMs: Number.POSITIVE_INFINITY, ...(signal && { signal }) }
  for (;;) {
    const deliveries = await inbox.receive(options)
    if (deliveries.length > 0) return deliveries
  }
}

/** `owner:n` for everyone who hears each delivery; the owners of one delivery in sorted order. */
export function heardBy(deliveries: readonly Delivery<string>[]): string[] {
  return deliveries.flatMap((delivery) => {
    const owners = delivery.group === undefined ? [delivery.owner] : [...delivery.owners].sort()
    return owners.map((owner) => `${owner}:${delivery.content.n}`)
  })
}

/** Takes what waits in an inbox and tells who hears what. */
export async function heard(inbox: Inbox<string>): Promise<string[]> {
  return heardBy(await drain(inbox))
}

/** The members of a group, sorted. */
export async function members(backend: ChannelBackend, group: string): Promise<string[]> {
  return [...(await backend.groupChannels(group))].sort()
}

/** Insists that `promise` rejects with a Channelkit error of `code`. */
export async function rejectsWith(promise: Promise<unknown>, code: ErrorCode): Promise<void> {
  await assert.rejects(promise, (error) => {
    assert.ok(isChannelkitError(error, code), `expected ${code}, got ${error}`)
    return true
  })
}

/** Each failure as `[index, code]`, in the order of the batch. */
export function failureCodes(failures: readonly SendFailure[]): [number, ErrorCode][] {
  return failures
    .map(({ index, error }): [number, ErrorCode] => [index, error.code])
    .sort(([a], [b]) => a - b)
}

/** Starts something whose outcome is looked at later, or never if the clause fails first. */
export function started<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {})
  return promise
}

/** Whether a promise has settled by the next turn of the event loop. */
export async function hasSettled(promise: Promise<unknown>): Promise<boolean> {
  let settled = false
  const note = (): void => {
    settled = true
  }
  promise.then(note, note)
  await nextTurn()
  return settled
}

/**
 * Advances the clock by `stepMs` until `promise` settles: a backend that asks a service may set its
 * timer only after a round trip.
 */
export async function advanceUntilSettled<T>(
  clock: FakeClock,
  promise: Promise<T>,
  stepMs: number,
): Promise<T> {
  await eventually(async () => {
    if (await hasSettled(promise)) return
    await clock.advance(stepMs)
    assert.fail('the call did not settle')
  })
  return promise
}

// At a millisecond each, longer than a service takes for what it does behind the caller's back.
const maxLooks = 3_000

/** Looks again and again until the assertions of `look` hold, and fails with them in the end. */
export async function eventually(look: () => Promise<void>): Promise<void> {
  for (let looks = 1; ; looks++) {
    try {
      await look()
      return
    } catch (error) {
      if (!(error instanceof assert.AssertionError) || looks === maxLooks) throw error
    }
    await new Promise<void>((resolve) => systemClock.schedule(resolve, 1))
  }
}

/** One turn of the event loop. */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}

/** The sum of one counter over several processes. */
export function counted(name: string, ...backends: readonly ChannelBackend[]): number {
  return backends.reduce((sum, backend) => sum + backend.counters.get(name), 0)
}

/** An announcement with every field filled in. */
export function processInfo(id: string, changes: Partial<ProcessInfo> = {}): ProcessInfo {
  return {
    id,
    kind: 'worker',
    host: 'host.example',
    pid: 4_711,
    startedAt: Date.UTC(2025, 0, 1),
    channels: ['http.request', 'websocket.receive'],
    ...changes,
  }
}
