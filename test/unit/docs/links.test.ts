import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { readPage } from '../../support/code-blocks.ts'

const root = fileURLToPath(new URL('../../../', import.meta.url))

const pages = [
  'README.md',
  'ARCHITECTURE.md',
  'CONTRIBUTING.md',
  'CHANGELOG.md',
  'docs/backend-contract.md',
  'docs/backends.md',
  'docs/concepts.md',
  'docs/delivery.md',
  'docs/deploying.md',
  'docs/errors.md',
  'docs/getting-started.md',
  'docs/message-formats.md',
  'docs/operating.md',
  'docs/redis-wire.md',
  'docs/scaling.md',
  'docs/sending.md',
  'docs/testing.md',
]

/** The part of an address that leads to a heading, as GitHub makes it. */
const anchorOf = (heading: string) =>
  heading
    .toLowerCase()
    .replace(/[^\w\- ]/g, '')
    .replaceAll(' ', '-')

describe.each(pages)('%s', (path) => {
  it('links to pages and headings that are there', async () => {
    const page = await readPage(path)
    const targets = [...page.matchAll(/\]\((?!https?:)([^)]+)\)/g)].map(
      ([, target]) => target ?? '',
    )

    const dead: string[] = []
    for (const target of targets) {
      const [file = '', anchor] = target.split('#')
      const linked = file === '' ? path : join(dirname(path), file)
      if (!existsSync(join(root, linked))) dead.push(target)
      else if (anchor !== undefined) {
        const headings = [...(await readPage(linked)).matchAll(/^#+ (.+)$/gm)]
        if (!headings.some(([, heading]) => anchorOf(heading ?? '') === anchor)) dead.push(target)
      }
    }

    expect(dead).toEqual([])
  })
})

describe('ARCHITECTURE.md', () => {
  it('names files that are there', async () => {
    const page = await readPage('ARCHITECTURE.md')
    const named = [...page.matchAll(/`([\w/-]+\.ts|src\/[\w/-]+)`/g)].map(([, file]) => file ?? '')

    const missing = named.filter((file) => {
      const places = [
        file,
        `src/${file}`,
        `src/interface-servers/${file}`,
        `src/backends/sql/${file}`,
      ]
      return file !== 'mutants.test.ts' && !places.some((place) => existsSync(join(root, place)))
    })

    expect(named.length).toBeGreaterThan(20)
    expect(missing).toEqual([])
  })
})
