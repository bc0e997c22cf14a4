import type { ServerResponse } from 'node:http'

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
