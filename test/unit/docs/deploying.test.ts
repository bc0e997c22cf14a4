import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { scripts } from '../../../src/backends/redis/wire.ts'
import { readPage } from '../../support/code-blocks.ts'

const source = fileURLToPath(new URL('../../../src/backends/redis', import.meta.url))

describe('docs/deploying.md', () => {
  it('lets the user of Redis do what the backend does, and nothing else', async () => {
    const page = await readPage('docs/deploying.md')
    const files = (await readdir(source)).filter((file) => file !== 'sentinel.ts')
    const code = (
      await Promise.all(files.map((file) => readFile(join(source, file), 'utf8')))
    ).join('')
    const inScripts = Object.values(scripts).flatMap(({ text }) => [
      ...text.matchAll(/\bcall\('([A-Z]+)'/g),
    ])
    const sent = [
      ...code.matchAll(/(?:sendCommand|attempt|ask|#ask)\(\[\s*'([A-Z]+)'/g),
      ...code.matchAll(/: '(EVALSHA|EVAL|PUBLISH)'|\['(EVALSHA|EVAL)'|publish = '(PUBLISH)'/g),
      ...code.matchAll(/\.(subscribe|unsubscribe|ping)\(/g),
    ]
    const used = [...inScripts, ...sent].map((match) => match.slice(1).find(Boolean)?.toLowerCase())

    const [rule = ''] = /^ACL SETUSER .*$/m.exec(page) ?? []
    const granted = [...rule.matchAll(/ \+([a-z]+)/g)].map(([, name]) => name)

    // Said apart from the rule: only a cluster needs them.
    const ofCluster = ['cluster']
    expect(granted.toSorted()).toEqual(
      [...new Set(used)].filter((name) => !ofCluster.includes(name ?? '')).sort(),
    )
    for (const name of ofCluster) expect(page).toContain(`+${name}`)
  })
})
