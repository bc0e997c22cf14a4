import { CommanderError } from 'commander'
import { type ChannelkitError, isChannelkitError } from '../errors.ts'
import { CliError } from './cli-error.ts'
import { placeOfFault } from './place-of-fault.ts'

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
  if (isPermissionError(error)) {
    return {
      line: `there is no permission for ${error.path}`,
      hint: 'give the user that starts it the right to read and write there',
      exitCode: 1,
    }
  }
  return {
    line: named(error),
    hint: 'add --log-level debug to see where it was thrown',
    exitCode: 1,
  }
}

function isPermissionError(error: unknown): error is Error & { readonly path: string } {
  return (
    error instanceof Error &&
    'path' in error &&
    'code' in error &&
    ['EACCES', 'EPERM', 'EROFS'].includes(String(error.code))
  )
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
  if (isPermissionError(cause)) return describeError(cause)
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
  const place = placeOfFault(file, fault)
  if (isChannelkitError(fault)) {
    const { line, hint } = splitMessage(fault)
    return { line: `${place}: ${line}`, hint }
  }
  return {
    line: `${place}: ${named(fault)}`,
    hint: 'correct the file and start again; --log-level debug shows the stack',
  }
}

function named(error: unknown): string {
  return oneLine(error instanceof Error ? `${error.name}: ${error.message}` : String(error))
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
