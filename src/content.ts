import { ChannelkitError } from './errors.ts'

/** What may stand inside content: JSON's values, and bytes. */
export type ContentValue =
  | string
  | number
  | boolean
  | null
  | Uint8Array
  | readonly ContentValue[]
  | { readonly [key: string]: ContentValue | undefined }

/**
 * The JSON object inside a message. `Uint8Array` values anywhere in it travel as bytes. A key whose
 * value is `undefined` is left out, as JSON does.
 */
export type Content = { readonly [key: string]: ContentValue | undefined }

/** What {@link measureContent} found. */
export interface ContentMeasure {
  /** An upper bound of the encoded size in bytes, cheap to take. */
  readonly maxBytes: number
  /** About how much memory it takes, in bytes; more than 0. */
  readonly memoryBytes: number
  /** Whether a `Uint8Array` stands anywhere inside. */
  readonly hasBytes: boolean
}

// Deeper nesting than any message needs; stops cycles before the stack does.
const maxDepth = 64
/** How deep content may be that was let in once, and what is made of it, such as a dead letter. */
export const storedDepth = 1_000
// The longest escape JSON.stringify writes for one UTF-16 unit, "\u001f".
const maxBytesPerUnit = 6
// What one takes in memory at most.
const memoryBytesPerUnit = 2

let deepest = maxDepth
let total = 0
let units = 0
let sawBytes = false

/**
 * Checks that `content` can travel and bounds its size, in one walk.
 *
 * @param depth - how deep it may be nested, 64 by default.
 * @throws {ChannelkitError} `ERR_INVALID_CONTENT` naming the place and the value, for anything
 *   whose copy would not equal it: dates, maps, class instances, functions, NaN, cycles.
 */
export function measureContent(content: unknown, depth = maxDepth): ContentMeasure {
  if (content === null || typeof content !== 'object' || !isPlainObject(content)) {
    throw invalid('content', content, 'send a plain object')
  }
  deepest = depth
  total = 0
  units = 0
  sawBytes = false
  walk(content, 0, '', undefined)
  const memoryBytes = total - units * (maxBytesPerUnit - memoryBytesPerUnit)
  return { maxBytes: total, memoryBytes, hasBytes: sawBytes }
}

/**
 * Makes a deep copy that shares nothing with `content`, which must have passed
 * {@link measureContent}. Bytes arrive as plain `Uint8Array`s; `__proto__` is an ordinary key.
 */
export function copyContent<T extends Content>(content: T): T {
  return copyValue(content) as T
}

function copyValue(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value === 0 ? 0 : value
  if (value instanceof Uint8Array) return new Uint8Array(value)
  if (Array.isArray(value)) return value.map(copyValue)
  const copy: Record<string, unknown> = {}
  for (const key of Object.keys(value)) {
    const inner = (value as Record<string, unknown>)[key]
    if (inner === undefined) continue
    if (key === '__proto__') {
      Object.defineProperty(copy, key, {
        value: copyValue(inner),
        enumerable: true,
        configurable: true,
        writable: true,
      })
    } else {
      copy[key] = copyValue(inner)
    }
  }
  return copy
}

interface Place {
  readonly key: string | number
  readonly parent: Place | undefined
}

function walk(value: unknown, depth: number, key: string | number, parent: Place | undefined) {
  switch (typeof value) {
    case 'string':
      total += value.length * maxBytesPerUnit + 3
      units += value.length
      return
    case 'number':
      if (!Number.isFinite(value)) throw invalid(pathOf(key, parent), value, 'send finite numbers')
      total += 26
      return
    case 'boolean':
      total += 6
      return
    case 'object':
      break
    default:
      throw invalid(pathOf(key, parent), value, 'send strings, numbers, booleans, null or bytes')
  }
  if (value === null) {
    total += 5
    return
  }
  if (depth > deepest) {
    throw new ChannelkitError(
      'ERR_INVALID_CONTENT',
      `content is nested deeper than ${deepest} levels, at ${pathOf(key, parent).slice(0, 60)}; break the cycle, or send less deep content`,
    )
  }
  if (value instanceof Uint8Array) {
    sawBytes = true
    total += value.byteLength + 64
    return
  }
  const here: Place | undefined = depth === 0 ? undefined : { key, parent }
  total += 3
  if (Array.isArray(value)) {
    for (let index = 0; index < value.length; index++) walk(value[index], depth + 1, index, here)
    return
  }
  if (!isPlainObject(value)) {
    throw invalid(pathOf(key, parent), value, 'turn it into plain values before sending')
  }
  for (const inner of Object.keys(value)) {
    const item = (value as Record<string, unknown>)[inner]
    if (item === undefined) continue
    total += inner.length * maxBytesPerUnit + 4
    units += inner.length
    walk(item, depth + 1, inner, here)
  }
}

function isPlainObject(value: object): boolean {
  const prototype = Object.getPrototypeOf(value)
  if (prototype === Object.prototype || prototype === null) return true
  // An object of another realm (a vm context, a test runner) has that realm's Object.prototype.
  return (
    !Array.isArray(value) &&
    Object.getPrototypeOf(prototype) === null &&
    Object.hasOwn(prototype, 'isPrototypeOf')
  )
}

function pathOf(key: string | number, parent: Place | undefined): string {
  const own = typeof key === 'number' ? `[${key}]` : key === '' ? '' : `.${key}`
  return parent ? pathOf(parent.key, parent.parent) + own : `content${own}`
}

function invalid(path: string, value: unknown, advice: string): ChannelkitError {
  return new ChannelkitError('ERR_INVALID_CONTENT', `${path} is ${kindOf(value)}; ${advice}`)
}

function kindOf(value: unknown): string {
  if (value === null || value === undefined || typeof value === 'number') return String(value)
  if (Array.isArray(value)) return 'an array'
  if (typeof value !== 'object') return `a ${typeof value}`
  const name: unknown = value.constructor?.name
  return typeof name === 'string' && name !== '' ? `a ${name}` : 'an object of no known class'
}
