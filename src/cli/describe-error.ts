import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { CommanderError } from 'commander'
import { type ChannelkitError, isChannelkitError } from '../errors.ts'
import { CliError } from './cli-error.ts'

/** What a person is told of an error that ended a command. */
export interface ErrorDescription {
  readonly line: string
  readonly hint: string
  readonly exitCode: 1 | 2
}

/** Puts any error that ends a command into one line and a hint. */
export function describeError(error: unknown): ErrorDescription {
  if (error instanceof CliError) {
    return { line: error.message, hint: error.hint, exitCode: error.exitCode }
  }
  if (error instanceof CommanderError) return describeUsageError(error)
  if (isChannelkitError(error)) return describeChannelkitError(error)
  const shown = error instanceof Error ? `${error.name}: ${error.message}` : String(error)
  return {
    line: oneLine(shown),
    hint: 'add --log-level debug to see where it was thrown',
    exitCode: 1,
  }
}

/** Commander says `error: unknown option '--prt'` and, on a second line, `(Did you mean --port?)`. */
function describeUsageError(error: CommanderError): ErrorDescription {
  const [first = '', suggestion] = error.message.replace(/^error: /, '').split('\n')
  const [line = '', ...rest] = first.split(/(?<=is invalid|')\. (?=[A-Z])/)
  const hint = suggestion?.replace(/^\((.*)\)$/, '$1') ?? rest.join(' ').replace(/\.$/, '')
  return { line, hint: decapitalized(hint || 'see channelkit --help'), exitCode: 2 }
}

function describeChannelkitError(error: ChannelkitError): ErrorDescription {
  const exitCode = error.category === 'programmer' ? 2 : 1
  const file = /(?:^| )(\/[^;"]+|[A-Za-z]:\\[^;"]+) cannot be loaded; /.exec(error.message)?.[1]
  if (file !== undefined && error.cause !== undefined) {
    return { ...describeUnloadable(file, error.cause), exitCode }
  }
  return { ...splitMessage(error), exitCode }
}

/** A message of ours is `<what happened>; <what to do>`. */
function splitMessage(error: ChannelkitError): Omit<ErrorDescription, 'exitCode'> {
  const mark = error.message.lastIndexOf('; ')
  if (mark === -1) {
    return { line: oneLine(error.message), hint: `look up ${error.code} in docs/errors.md` }
  }
  return {
    line: oneLine(error.message.slice(0, mark)),
    hint: oneLine(error.message.slice(mark + 2)),
  }
}

function describeUnloadable(file: string, cause: unknown): Omit<ErrorDescription, 'exitCode'> {
  const fault = cause instanceof Error ? cause : new Error(String(cause))
  const compiled = /^(?<place>.+:\d+:\d+): ERROR: (?<reason>.*)$/m.exec(fault.message)?.groups
  if (compiled) {
    return {
      line: `${compiled.place}: SyntaxError: ${compiled.reason}`,
      hint: 'correct the file and start again',
    }
  }
  const missing = /^Cannot find (?<what>.+) imported from (?<importer>.+)$/.exec(
    fault.message,
  )?.groups
  if (missing) {
    return {
      line: `${missing.importer}: imports ${missing.what}, which is not there`,
      hint: 'check the spelling, or install the package',
    }
  }
  const place =
    (fault instanceof SyntaxError ? findSyntaxError(file) : undefined) ?? placeThrown(fault)
  if (isChannelkitError(fault)) {
    const { line, hint } = splitMessage(fault)
    return { line: `${place ?? file}: ${line}`, hint }
  }
  return {
    line: `${place ?? file}: ${oneLine(`${fault.name}: ${fault.message}`)}`,
    hint: 'correct the file and start again; --log-level debug shows the stack',
  }
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

function oneLine(text: string): string {
  return text
    .split('\n')
    .map((line) => line.trim())
    .filter(Boolean)
    .join(' ')
}

function decapitalized(text: string): string {
  return text.charAt(0).toLowerCase() + text.slice(1)
}
