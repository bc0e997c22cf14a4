import { describe, expect, it } from 'vitest'
import { scripts } from '../../../src/backends/redis/wire.ts'
import { readPage } from '../../support/code-blocks.ts'

const shared = ['send', 'receivers', 'push'] as const

describe('docs/redis-wire.md', () => {
  // Where a script has changed, `vitest -u` writes its file anew.
  it.each(shared)('has the script %s as a file, as the code runs it', async (name) => {
    await expect(scripts[name].text).toMatchFileSnapshot(`../../../docs/redis/${name}.lua`)
  })

  it('describes every key and publish channel that a script makes', async () => {
    const page = (await readPage('docs/redis-wire.md')).split('## Entries')[0] ?? ''
    const texts = Object.values(scripts).map(({ text }) => text)

    const used = texts.flatMap((text) =>
      [...text.matchAll(/base \.\. '([^']+)'/g)].map(([, suffix]) => suffix),
    )

    const described = [...page.matchAll(/^\| `([\w:-]+?)(?:[A-Z]+)?` \|/gm)].map(([, name]) => name)
    expect([...new Set(used)].sort()).toEqual([...new Set(described)].sort())
  })

  it('describes every part of the orders of send and push', async () => {
    const page = (await readPage('docs/redis-wire.md')).split('## Send from')[1] ?? ''
    const used = (name: 'send' | 'push') =>
      [...scripts[name].text.matchAll(/\border\.(\w+)/g)].map(([, part]) => part ?? '')

    const rows = [...page.matchAll(/^\| (`.+`) \| (both|`send`|`push`) \|/gm)]
    const described = (name: string) =>
      rows
        .filter(([, , of]) => of === 'both' || of === `\`${name}\``)
        .flatMap(([, parts = '']) => parts.replaceAll('`', '').split(', '))

    for (const name of ['send', 'push'] as const) {
      expect([...new Set(used(name))].sort()).toEqual(described(name).sort())
    }
  })
})
