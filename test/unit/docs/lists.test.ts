import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { MemoryBackend } from 'channelkit/memory'
import { describe, expect, it } from 'vitest'
import { errorTable } from '../../../src/errors.ts'
import {
  resolveHttpSettings,
  resolveWebSocketSettings,
} from '../../../src/interface-servers/settings.ts'
import { resolvePublishSettings } from '../../../src/publish-settings.ts'
import { readPage } from '../../support/code-blocks.ts'

const source = fileURLToPath(new URL('../../../src/', import.meta.url))

/** The rows of the tables under a heading, without their heads. */
function rowsUnder(page: string, heading: string): string[][] {
  const start = page.indexOf(`\n${heading}\n`)
  if (start === -1) throw new Error(`there is no heading ${heading}`)
  const rest = page.slice(start + heading.length + 2)
  const section = rest.split(/^#/m)[0] ?? ''
  const rows = [...section.matchAll(/^\| (.*) \|$/gm)].map(([, row]) => (row ?? '').split(' | '))
  return rows.slice(1)
}

const unquoted = (cell = '') => cell.replace(/^`(.*)`$/, '$1')

describe('docs/errors.md', () => {
  it.each([
    ['programmer', '## Fix the code'],
    ['operational', '## May pass'],
    ['client', "## The client's fault"],
  ])('explains every error of category %s', async (category, heading) => {
    const page = await readPage('docs/errors.md')

    const listed = rowsUnder(page, heading).map(([code]) => unquoted(code))

    const codes = Object.entries(errorTable).filter(([, kind]) => kind.category === category)
    expect(listed).toEqual(codes.map(([code]) => code))
  })
})

describe('docs/message-formats.md', () => {
  it.each([
    ['## Head of a request', 'type RequestHead ='],
    ['## `http.request`', 'export type HttpRequest ='],
    ['## HTTP response', 'export type HttpResponse ='],
    ['## HTTP response part', 'export type HttpResponsePart ='],
    ['## HTTP listen', 'export type HttpListen ='],
    ['## HTTP notice', 'export type HttpNotice ='],
    ['## `http.disconnect`', 'export type HttpDisconnect ='],
    ['## `websocket.connect`', 'export type WebSocketConnect ='],
    ['## `websocket.receive`', 'export type WebSocketReceive ='],
    ['## `websocket.keepalive`', 'export type WebSocketKeepalive ='],
    ['## `websocket.disconnect`', 'export type WebSocketDisconnect ='],
    ['## WebSocket reply', 'export type WebSocketReply ='],
    ['## `__channels__.echo`', 'export type Echo ='],
    ['## `__channels__.gone`', 'export type Gone ='],
  ])('lists the keys under %s as the type has them', async (heading, type) => {
    const page = await readPage('docs/message-formats.md')
    const code = await readPage('src/message-formats.ts')

    const listed = rowsUnder(page, heading).map(([key, , required]) => [
      unquoted(key),
      required === 'yes',
    ])

    const body = code.slice(code.indexOf(type)).split(/\n\n(?!\s)/)[0] ?? ''
    const keys = new Map<string, boolean>()
    for (const [, key, optional] of body.matchAll(/readonly (\w+)(\??):/g)) {
      keys.set(key ?? '', (keys.get(key ?? '') ?? true) && optional === '')
    }
    expect(listed).toEqual([...keys])
  })

  it('has a heading for every built-in channel', async () => {
    const page = await readPage('docs/message-formats.md')
    const code = await readPage('src/message-formats.ts')

    const table = code.slice(code.indexOf('interface BuiltInChannels'))
    const channels = [...table.matchAll(/^ {2}'?([\w.]+)'?:/gm)].map(([, name]) => name)

    const headings = [...page.matchAll(/^## `(.+)`$/gm)].map(([, name]) => name)
    expect(headings).toEqual(channels)
  })
})

describe('docs/operating.md', () => {
  it('lists every counter in the code, and no other', async () => {
    const page = await readPage('docs/operating.md')
    const files = (await readdir(source, { recursive: true })).filter(
      (file) => file.endsWith('.ts') && !file.startsWith('testing'),
    )
    const code = (
      await Promise.all(files.map((file) => readFile(join(source, file), 'utf8')))
    ).join('\n')

    const listed = [
      '### Backends',
      '### Workers',
      '### WebSocket interface server',
      '### HTTP interface server',
    ]
      .flatMap((heading) => rowsUnder(page.split('## Settings')[0] ?? '', heading))
      .map(([name]) => unquoted(name))

    const counted = new Set<string>()
    const names = /(?:counters|Counters)\.add\(([^)]*)|dropRequeued\(([^)]*)|#count\(([^)]*)/g
    for (const [, ...parts] of code.matchAll(names)) {
      const part = parts.find((each) => each !== undefined) ?? ''
      for (const [, name] of part.matchAll(/'([\w.-]+)'/g)) {
        counted.add(parts[1] === undefined ? (name ?? '') : `dropped.${name}`)
      }
      for (const [, prefix] of part.matchAll(/`([\w-]+\.)\$\{\w+(?:\.code)?\}/g)) {
        if (prefix !== 'dropped.') counted.add(`\`${prefix}\`*code*`)
      }
    }
    expect([...new Set(listed)].sort()).toEqual([...counted].sort())
  })

  it.each([
    ['### `websocket`', { ...resolveWebSocketSettings() }],
    ['### `http`', { ...resolveHttpSettings() }],
    [
      '### `worker`',
      {
        concurrency: 100,
        maxRequeues: 10,
        maxStreams: 10_000,
        graceMs: 30_000,
        lineLeaseMs: 15_000,
        maxTurnMs: 300_000,
        holdLeaseMs: 15_000,
        deadLetterExpiryMs: 1_209_600_000,
      },
    ],
    ['### `publish`', { ...resolvePublishSettings({ tokens: ['t'.repeat(32)] }), tokens: [] }],
    ['### Backends', backendDefaults()],
  ])('lists the settings under %s with their defaults', async (heading, defaults) => {
    const page = (await readPage('docs/operating.md')).split('## Settings')[1] ?? ''

    const listed = rowsUnder(page, heading).map(([name, value]) => [
      unquoted(name),
      unquoted(value),
    ])

    expect(listed).toEqual(
      Object.entries(defaults).map(([name, value]) => [name, shownDefault(value)]),
    )
  })
})

function backendDefaults() {
  const { capacity, inboxCapacity, lineCapacity, delayedCapacity, ...limits } = new MemoryBackend()
    .limits
  const { expiryMs, groupExpiryMs, maxContentBytes } = limits
  const expiries = { expiryMs, groupExpiryMs }
  return {
    capacity,
    channelCapacity: [],
    inboxCapacity,
    lineCapacity,
    delayedCapacity,
    ...expiries,
    maxContentBytes,
  }
}

function shownDefault(value: unknown): string {
  if (value === undefined) return 'in development, on loopback'
  if (typeof value === 'number') return value.toLocaleString('en')
  if (Array.isArray(value)) return value.join(', ') || 'none'
  return String(value)
}
