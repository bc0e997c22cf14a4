import { createReadStream } from 'node:fs'
import type { Content } from '../content.ts'
import { CliError } from './cli-error.ts'
import { findJsonFault } from './json-place.ts'

/** Where a command's content comes from. */
export interface ContentSource {
  /** The argument: JSON, or `-` for standard input, which is also read when there is none. */
  readonly json: string | undefined
  readonly file: string | undefined
}

// An escape in JSON takes six bytes for one, and blanks may stand between everything.
const bytesPerByte = 8

/**
 * Reads content: an object in JSON, from the argument, a file or standard input.
 *
 * @param maxContentBytes - of the backend; what can never fit is not read to its end.
 * @throws {CliError} with exit code 2, naming the place of the fault.
 */
export async function readContent(
  { json, file }: ContentSource,
  maxContentBytes: number,
): Promise<Content> {
  if (json !== undefined && file !== undefined) {
    throw wrongUse('there is content as an argument and in --file', 'give one of them')
  }
  if (json !== undefined && json !== '-') return parseContent(json, 'the content')
  if (file === undefined && process.stdin.isTTY) {
    throw wrongUse(
      'there is no content',
      `give JSON like '{"id": 1}', --file FILE, or pipe it into standard input`,
    )
  }
  const place = file ?? 'standard input'
  const text = await readText(file, place, maxContentBytes * bytesPerByte)
  return parseContent(text, place)
}

async function readText(file: string | undefined, place: string, maxBytes: number) {
  const chunks: Buffer[] = []
  let size = 0
  try {
    for await (const chunk of file === undefined ? process.stdin : createReadStream(file)) {
      size += chunk.length
      if (size > maxBytes) {
        throw wrongUse(
          `${place} has more than ${maxBytes.toLocaleString('en')} bytes`,
          'send less, or a reference to it',
        )
      }
      chunks.push(chunk)
    }
  } catch (cause) {
    if (cause instanceof CliError) throw cause
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw wrongUse(`${place} cannot be read: ${reason}`, 'check the path and its permissions')
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(chunks))
  } catch {
    throw wrongUse(`${place} is not UTF-8`, 'send JSON in UTF-8')
  }
}

function parseContent(text: string, place: string): Content {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    const fault = findJsonFault(text)
    if (!fault) throw cause
    const { line, column, found, expected } = fault
    throw wrongUse(
      `${place} is not JSON: at line ${line}, column ${column} stands ${found} instead of ${expected}`,
      `give an object like '{"id": 1}', in single quotes of the shell`,
    )
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Content
  const kind = value === null ? 'null' : Array.isArray(value) ? 'a list' : `a ${typeof value}`
  throw wrongUse(`${place} is ${kind}, and content is an object`, `give one like '{"id": 1}'`)
}

function wrongUse(message: string, hint: string): CliError {
  return new CliError(message, { hint, exitCode: 2 })
}
