import { defineConfig } from 'channelkit'

export default defineConfig({
  app: () => import('./app.ts'),
  channelBackends: { default: { routing: './consumers.ts#channelRouting' } },
})
