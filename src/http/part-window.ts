/**
 * How far a streamed answer may run ahead of its client. The view stops at a full window; the
 * interface server acknowledges parts long before one is full, so the two cannot wait for each
 * other.
 */

/** The largest part, in bytes: a quarter of the largest content by default, so that one always fits. */
export const maxPartBytes = 262_144
/** What may be under way to one client. */
export const fullWindow = 1_048_576
/** So much is written to the client's socket before an acknowledgement is sent. */
export const acknowledgeEvery = 262_144

// A small part costs its message, wherever it waits.
const leastCost = 4_096

/** What a part takes of the window. */
export function partCost(content: unknown): number {
  if (typeof content === 'string') return Math.max(leastCost, content.length)
  if (content instanceof Uint8Array) return Math.max(leastCost, content.byteLength)
  return leastCost
}

/** The largest part on a backend whose contents may have `maxContentBytes`. */
export function partBytesFor(maxContentBytes: number): number {
  return Math.min(maxPartBytes, Math.max(1_024, Math.floor(maxContentBytes / 4)))
}
