const blank = /[ \t\n\r]*/y
// Characters from the space on stand for themselves, but for the quote and the backslash.
const plain = /[ !#-[\]-\u{10ffff}]*/uy
const escaped = /\\(?:["\\/bfnrt]|u[\da-fA-F]{4})/y
const scalar = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\d.])|true\b|false\b|null\b/y

/** What is wrong with a text that is not JSON, and where. */
export interface JsonFault {
  /** From 1. */
  readonly line: number
  /** From 1. */
  readonly column: number
  /** What stands there. */
  readonly found: string
  readonly expected: string
}

/** Finds the first place at which `text` is not JSON (RFC 8259); undefined when it is. */
export function findJsonFault(text: string): JsonFault | undefined {
  let at = 0
  const open: string[] = []
  let expected = 'a value'
  const skip = (pattern: RegExp): boolean => {
    pattern.lastIndex = at
    const match = pattern.exec(text)
    if (match) at += match[0].length
    return match !== null
  }
  const take = (mark: string): boolean => {
    if (text[at] !== mark) return false
    at++
    return true
  }
  // By steps: one pattern for all of a string overflows the stack where it has very many escapes.
  const skipString = (): boolean => {
    const start = at
    if (!take('"')) return false
    do skip(plain)
    while (skip(escaped))
    if (take('"')) return true
    at = start
    return false
  }
  for (;;) {
    skip(blank)
    const inside = open.at(-1)
    if (expected === 'a value' || expected === 'a value or "]"') {
      if (take('{')) {
        open.push('}')
        expected = 'a key or "}"'
      } else if (take('[')) {
        open.push(']')
        expected = 'a value or "]"'
      } else if (expected !== 'a value' && take(']')) {
        open.pop()
        expected = after(open)
      } else if (skipString() || skip(scalar)) {
        expected = after(open)
      } else break
    } else if (expected === 'a key or "}"' || expected === 'a key') {
      if (expected !== 'a key' && take('}')) {
        open.pop()
        expected = after(open)
      } else if (skipString()) {
        expected = '":"'
      } else break
    } else if (expected === '":"') {
      if (!take(':')) break
      expected = 'a value'
    } else if (inside === undefined) {
      if (at === text.length) return undefined
      break
    } else if (take(',')) {
      expected = inside === '}' ? 'a key' : 'a value'
    } else if (take(inside)) {
      open.pop()
      expected = after(open)
    } else break
  }
  const before = text.slice(0, at).split('\n')
  return {
    line: before.length,
    column: (before.at(-1)?.length ?? 0) + 1,
    found: at === text.length ? 'the end' : JSON.stringify(text.slice(at, at + 20)),
    expected,
  }
}

/** What may stand behind a value. */
function after(open: readonly string[]): string {
  const inside = open.at(-1)
  return inside === undefined ? 'the end' : `"," or "${inside}"`
}
