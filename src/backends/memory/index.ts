export { MemoryBackend, type MemoryBackendOptions } from './memory-backend.ts'
export { MemoryStore } from './memory-store.ts'
