import type { ServerResponse } from 'node:http'
import { hopByHop } from '../http/response-head.ts'

/** What `writeHead` takes for headers. */
export type GivenHeaders =
  | Readonly<Record<string, string | number | readonly string[]>>
  | readonly (string | number | readonly string[])[]
  | readonly (readonly [string, string])[]

/** Sets what `writeHead` was given, which Node would not store where no header was set before. */
export function foldHeaders(response: ServerResponse, given: GivenHeaders): void {
  if (!Array.isArray(given)) {
    for (const [name, value] of Object.entries(given)) {
      if (value !== undefined) response.setHeader(name, value)
    }
    return
  }
  const flat = Array.isArray(given[0]) ? given.flat() : given
  if (flat.length % 2 !== 0) return
  for (let index = 0; index < flat.length; index += 2) response.removeHeader(String(flat[index]))
  for (let index = 0; index < flat.length; index += 2) {
    response.appendHeader(String(flat[index]), flat[index + 1] as string)
  }
}

/** The values of one header, as often as they are given. */
export function givenValues(given: GivenHeaders, name: string): unknown[] {
  const isIt = (each: unknown): boolean => String(each).toLowerCase() === name
  if (!Array.isArray(given)) {
    const key = Object.keys(given).find(isIt)
    return key === undefined ? [] : [(given as Record<string, unknown>)[key]].flat()
  }
  const flat: readonly unknown[] = Array.isArray(given[0]) ? given.flat() : given
  return flat.filter((_value, index) => index % 2 === 1 && isIt(flat[index - 1])).flat()
}

/** The same without headers of the connection; most have none, and stay as they are. */
export function withoutHopByHop(given: GivenHeaders): GivenHeaders {
  if (!Array.isArray(given)) {
    const names = Object.keys(given)
    if (!names.some(isHopByHop)) return given
    return Object.fromEntries(Object.entries(given).filter(([name]) => !isHopByHop(name)))
  }
  if (Array.isArray(given[0])) return given.filter(([name]) => !isHopByHop(String(name)))
  const kept: (string | number | readonly string[])[] = []
  for (let index = 0; index < given.length; index += 2) {
    if (!isHopByHop(String(given[index]))) kept.push(...given.slice(index, index + 2))
  }
  return kept
}

function isHopByHop(name: string): boolean {
  return hopByHop.has(name.toLowerCase())
}
