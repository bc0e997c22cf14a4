import { type Command, Option } from 'commander'
import { longestDelayMs } from '../backends/later.ts'
import { readTime } from '../delays.ts'
import { CliError } from './cli-error.ts'

export const logLevels = ['debug', 'info', 'warn', 'error'] as const
export const logFormats = ['human', 'json'] as const

/** What every command takes. */
export interface CommonOptions {
  readonly config?: string
  readonly logLevel: (typeof logLevels)[number]
  readonly logFormat?: (typeof logFormats)[number]
}

/** Where a server listens. */
export interface ListenOptions {
  readonly port: number
  readonly host: string
  readonly unixSocket?: string
}

/** Adds the options that every command takes. */
export function addCommonOptions(command: Command): Command {
  return command
    .option('--config <file>', 'config file (default: the nearest channels.config.ts)')
    .addOption(
      new Option('--log-level <level>', 'least urgent lines to log')
        .choices(logLevels)
        .default('info'),
    )
    .addOption(
      new Option(
        '--log-format <format>',
        'how lines are logged (default: human; json in production, unless on a terminal)',
      ).choices(logFormats),
    )
}

/** Adds the options that say where a server listens. */
export function addListenOptions(command: Command, defaultPort: number): Command {
  return command
    .option('--port <number>', 'port to listen on; 0 takes a free one', readPort, defaultPort)
    .option('--host <address>', 'address to listen on; 0.0.0.0 for every one', '127.0.0.1')
    .option('--unix-socket <path>', 'socket file to listen on, instead of a port')
}

function readPort(text: string): number {
  return readWholeNumber('--port', text, 0, 65_535)
}

export function readMax(text: string): number {
  return readWholeNumber('--max', text, 1, 10_000)
}

export function readDelayMs(text: string): number {
  return readWholeNumber('--delay-ms', text, 0, longestDelayMs)
}

export function readAt(text: string): Date {
  const time = readTime(text)
  if (time) return time
  throw new CliError(`--at is ${JSON.stringify(text)}`, {
    hint: 'give a time with its zone, like 2030-01-01T08:00:00Z or 2030-01-01T09:00+01:00',
    exitCode: 2,
  })
}

export function readConcurrency(text: string): number {
  return readWholeNumber('--concurrency', text, 1, 10_000)
}

function readWholeNumber(option: string, text: string, min: number, max: number): number {
  const value = /^\d+$/.test(text) ? Number(text) : Number.NaN
  if (value >= min && value <= max) return value
  throw new CliError(`${option} is ${JSON.stringify(text)}`, {
    hint: `give a whole number from ${min} to ${max}`,
    exitCode: 2,
  })
}
