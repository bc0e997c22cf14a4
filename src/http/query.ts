import type { ValueLists } from '../message-formats.ts'

/** Decodes a query into lists of values; `+` is a space. */
export function parseQuery(query: string): ValueLists {
  const lists: Record<string, string[]> = Object.create(null)
  if (query === '') return lists
  for (const [name, value] of new URLSearchParams(query)) {
    const list = lists[name]
    if (list) list.push(value)
    else lists[name] = [value]
  }
  return lists
}

/** Decodes a Cookie header (RFC 6265 section 5.4); of two cookies of one name the first counts. */
export function parseCookies(header: string | undefined): Record<string, string> {
  const cookies: Record<string, string> = Object.create(null)
  for (const pair of header?.split(';') ?? []) {
    const mark = pair.indexOf('=')
    if (mark === -1) continue
    const name = pair.slice(0, mark).trim()
    if (name === '' || name in cookies) continue
    const value = pair
      .slice(mark + 1)
      .trim()
      .replace(/^"(.*)"$/, '$1')
    cookies[name] = decodeCookie(value)
  }
  return cookies
}

function decodeCookie(value: string): string {
  if (!value.includes('%')) return value
  try {
    return decodeURIComponent(value)
  } catch {
    return value
  }
}
