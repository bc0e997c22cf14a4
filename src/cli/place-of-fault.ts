import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

/**
 * Where in a site's own code an error comes from that loading `file` ended with.
 *
 * @returns a path, with `:line` or `:line:column` where that can be found.
 */
export function placeOfFault(file: string, fault: Error): string {
  return (
    (fault instanceof SyntaxError ? findSyntaxError(file) : undefined) ?? placeThrown(fault) ?? file
  )
}

/** `file:line:column` of the innermost frame in the site's own code. */
function placeThrown({ stack = '' }: Error): string | undefined {
  // Node puts the place of a missing export in front of the stack.
  const inFront = /^((?:file:\/\/)?\/.+:\d+)\n/.exec(stack)?.[1]
  if (inFront !== undefined) return toPath(inFront)
  const ours = dirname(dirname(fileURLToPath(import.meta.url)))
  for (const [, frame = ''] of stack.matchAll(
    /^ +at (?:.*\()?((?:file:\/\/)?\/.+?:\d+:\d+)\)?$/gm,
  )) {
    const place = toPath(frame)
    if (!place.includes('/node_modules/') && !place.startsWith(ours)) return place
  }
  return undefined
}

function toPath(place: string): string {
  return place.startsWith('file://')
    ? place.replace(
        /^(.*?)((?::\d+)+)$/,
        (_, url: string, numbers: string) => fileURLToPath(url) + numbers,
      )
    : place
}

/**
 * Finds which file, of `file` and those it imports by relative path, has the syntax error: V8 tells
 * neither file nor line of an imported JavaScript file, only `node --check` does.
 */
function findSyntaxError(file: string, seen = new Set<string>()): string | undefined {
  if (seen.has(file)) return undefined
  seen.add(file)
  let source: string
  try {
    source = readFileSync(file, 'utf8')
  } catch {
    return undefined
  }
  if (/\.m?js$/.test(file)) {
    try {
      execFileSync(process.execPath, ['--check', file], { stdio: 'pipe' })
    } catch (error) {
      const output = String((error as { stderr?: unknown }).stderr)
      const place = /^((?:file:\/\/)?\/.+:\d+)$/m.exec(output)?.[1]
      if (place) return toPath(place)
    }
  }
  for (const [, imported = ''] of source.matchAll(/(?:from|import)\s*\(?\s*['"](\.[^'"]+)['"]/g)) {
    const place = findSyntaxError(resolve(dirname(file), imported), seen)
    if (place) return place
  }
  return undefined
}
