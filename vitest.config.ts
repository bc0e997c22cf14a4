import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'

const source = (path: string) => fileURLToPath(new URL(`./src/${path}`, import.meta.url))

// Tests run the source; the system tests alone start the built command line.
const alias = [
  { find: /^channelkit$/, replacement: source('index.ts') },
  { find: /^channelkit\/memory$/, replacement: source('backends/memory/index.ts') },
  { find: /^channelkit\/sqlite$/, replacement: source('backends/sql/sqlite.ts') },
  { find: /^channelkit\/postgres$/, replacement: source('backends/sql/postgres.ts') },
  { find: /^channelkit\/redis$/, replacement: source('backends/redis/redis.ts') },
  { find: /^channelkit\/mysql$/, replacement: source('backends/sql/mysql.ts') },
  { find: /^channelkit\/backend$/, replacement: source('backends/index.ts') },
  { find: /^channelkit\/server$/, replacement: source('server.ts') },
  { find: /^channelkit\/sessions$/, replacement: source('sessions/index.ts') },
  { find: /^channelkit\/models$/, replacement: source('models/index.ts') },
  { find: /^channelkit\/testing$/, replacement: source('testing/index.ts') },
]

const project = (name: string, timeoutMs: number) => ({
  resolve: { alias },
  test: {
    name,
    include: [`test/${name}/**/*.test.ts`],
    testTimeout: timeoutMs,
    hookTimeout: timeoutMs,
  },
})

export default defineConfig({
  resolve: { alias },
  test: {
    projects: [
      project('unit', 10_000),
      project('contract', 20_000),
      // Real processes, browsers and servers on two cores, after the others: two files at a time.
      {
        ...project('system', 90_000),
        test: { ...project('system', 90_000).test, maxWorkers: 2, sequence: { groupOrder: 1 } },
      },
    ],
  },
})
