import type { InboxEntry, ReceiveOptions } from 'channelkit/backend'
import { MemoryBackend } from 'channelkit/memory'
import { FakeClock } from 'channelkit/testing'
import { describe, expect, it } from 'vitest'
import { ChannelkitError } from '../../../src/errors.ts'
import { Hub } from '../../../src/interface-servers/hub.ts'
import type { Clock } from '../../../src/internal/clock.ts'
import { silentLogger } from '../../../src/logger.ts'

/** A clock that can be set forward without its timers running, as when a machine sleeps. */
class SettableClock implements Clock {
  readonly fake = new FakeClock()
  #aheadMs = 0

  now(): number {
    return this.fake.now() + this.#aheadMs
  }

  elapsed(): number {
    return this.fake.elapsed()
  }

  schedule(callback: () => void, delayMs: number): () => void {
    return this.fake.schedule(callback, delayMs)
  }

  setForward(ms: number): void {
    this.#aheadMs += ms
  }
}

/** A memory backend whose inboxes a test takes away and brings back. */
class AwayBackend extends MemoryBackend {
  renewals = 0
  failingRenewals = 0
  #away = new AbortController()
  #isAway = false

  breaks(): void {
    this.#isAway = true
    this.#away.abort(unavailable())
  }

  mends(): void {
    this.#isAway = false
    this.#away = new AbortController()
  }

  override async receiveEntries(
    inbox: string,
    options: ReceiveOptions,
  ): Promise<readonly InboxEntry[]> {
    if (this.#isAway) throw unavailable()
    const signals = options.signal ? [options.signal] : []
    const signal = AbortSignal.any([...signals, this.#away.signal])
    return super.receiveEntries(inbox, { ...options, signal })
  }

  override async renewMemberships(
    ...args: Parameters<MemoryBackend['renewMemberships']>
  ): Promise<void> {
    this.renewals++
    if (this.failingRenewals-- > 0) throw unavailable()
    return super.renewMemberships(...args)
  }
}

function unavailable(): ChannelkitError {
  return new ChannelkitError('ERR_BACKEND_UNAVAILABLE', 'the service is away')
}

async function startedHub(limits: { readonly groupExpiryMs: number }) {
  const clock = new SettableClock()
  const backend = new AwayBackend({ clock, ...limits })
  const hub = new Hub({ backend, logger: silentLogger, renewal: 'auto' })
  await hub.start()
  const heard: unknown[] = []
  const channel = hub.inbox.newChannel({ receive: ({ content }) => void heard.push(content.n) })
  await backend.groupAdd([{ group: 'chat', channel }])
  await clock.fake.advance(0)
  const stop = async (): Promise<void> => {
    await hub.stop()
    await backend.close()
  }
  return { backend, hub, clock, channel, heard, [Symbol.asyncDispose]: stop }
}

describe('Hub', () => {
  it('keeps its clients in their groups when the clock is set forward past the expiry', async () => {
    await using site = await startedHub({ groupExpiryMs: 6_000 })

    site.clock.setForward(10_000)
    await site.clock.fake.advance(1_000)

    expect(site.hub.inbox.membershipCount).toBe(1)
    expect(await site.backend.groupChannels('chat')).toEqual([site.channel])
    await site.backend.groupSend([{ group: 'chat', content: { n: 1 } }])
    await site.clock.fake.advance(0)
    expect(site.heard).toEqual([1])
  })

  it('renews memberships three times per expiry', async () => {
    await using site = await startedHub({ groupExpiryMs: 30_000 })

    await site.clock.fake.advance(60_000)

    expect(site.backend.renewals).toBe(6)
    expect(await site.backend.groupChannels('chat')).toEqual([site.channel])
  })

  it('hands out what it took after an outage although the renewal fails, and renews soon', async () => {
    await using site = await startedHub({ groupExpiryMs: 60_000 })
    site.backend.breaks()
    await site.clock.fake.advance(10)
    site.backend.failingRenewals = 2
    await site.backend.flush()
    await site.backend.send([{ channel: site.channel, content: { n: 2 } }])
    site.backend.mends()

    await site.clock.fake.advance(5_000)

    expect(site.heard).toEqual([2])
    expect(await site.backend.groupChannels('chat')).toEqual([site.channel])
  })

  it('notices the end of an outage and announces its groups again, though nothing arrives', async () => {
    await using site = await startedHub({ groupExpiryMs: 60_000 })
    site.backend.breaks()
    await site.clock.fake.advance(10)
    await site.backend.flush()
    site.backend.mends()

    await site.clock.fake.advance(2_000)

    expect(await site.backend.groupChannels('chat')).toEqual([site.channel])
  })
})
