import type { ProcessInfo } from './channel-backend.ts'

/** An announcement, or `undefined` when another program has written something else there. */
export function readProcessInfo(text: string): ProcessInfo | undefined {
  try {
    const info = JSON.parse(text) as Partial<ProcessInfo> | null
    const { id, kind, channels, linearized = [] } = info ?? {}
    const isInfo = typeof id === 'string' && (kind === 'worker' || kind === 'interface')
    return isInfo && isNames(channels) && isNames(linearized) ? (info as ProcessInfo) : undefined
  } catch {
    return undefined
  }
}

function isNames(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((name) => typeof name === 'string')
}
