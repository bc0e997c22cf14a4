import { ChannelkitError, shown } from '../errors.ts'

/** `[pattern, capacity]` pairs: a glob or a regular expression, and a count of 1 or more. */
export type CapacityRules = readonly (readonly [pattern: string | RegExp, capacity: number])[]

// Beyond this many distinct names the memo is started anew, so that names made up by clients
// cannot make it grow.
const maxRemembered = 10_000

/**
 * Makes the function from channel name to capacity: the first rule that matches the whole name
 * wins, else `capacity` (C11).
 *
 * @throws {ChannelkitError} `ERR_INVALID_CONFIG` naming the rule.
 */
export function capacityLookup(
  capacity: number,
  rules: CapacityRules = [],
): (channel: string) => number {
  const tests = rules.map(([pattern, limit]) => {
    if (!Number.isInteger(limit) || limit < 1) {
      throw new ChannelkitError(
        'ERR_INVALID_CONFIG',
        `channelCapacity of ${shown(String(pattern))} is ${shown(limit)}; give a whole number from 1`,
      )
    }
    return { expression: wholeName(pattern), limit }
  })
  if (tests.length === 0) return () => capacity
  const remembered = new Map<string, number>()
  return (channel) => {
    const known = remembered.get(channel)
    if (known !== undefined) return known
    const found = tests.find(({ expression }) => expression.test(channel))?.limit ?? capacity
    if (remembered.size >= maxRemembered) remembered.clear()
    remembered.set(channel, found)
    return found
  }
}

function wholeName(pattern: string | RegExp): RegExp {
  if (pattern instanceof RegExp)
    return new RegExp(`^(?:${pattern.source})$`, pattern.flags.replace(/[gy]/g, ''))
  const parts = pattern.split('*').map((part) => part.replace(/[^A-Za-z0-9_-]/g, '\\$&'))
  return new RegExp(`^${parts.join('.*')}$`)
}
