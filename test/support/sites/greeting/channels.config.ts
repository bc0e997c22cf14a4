import { defineConfig } from 'channelkit'

// biome-ignore lint/style/noDefaultExport: a config file has one.
export default defineConfig({
  channelBackends: { default: { backend: 'memory:', routing: './consumers.ts#channelRouting' } },
  app: './consumers.ts#app',
})
