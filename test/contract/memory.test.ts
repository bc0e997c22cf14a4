import { MemoryBackend, MemoryStore } from 'channelkit/memory'
import { describeChannelBackend } from 'channelkit/testing'

describeChannelBackend('MemoryBackend', async () => {
  const store = new MemoryStore()
  return {
    open: async (options) => new MemoryBackend({ ...options, store }),
    dispose: async () => {},
  }
})
