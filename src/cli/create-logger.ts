import { destination, type Logger as PinoLogger, pino, stdTimeFunctions } from 'pino'
import { prettyFactory } from 'pino-pretty'
import { parseWithoutControls } from './escape-controls.ts'
import type { CommonOptions } from './options.ts'

/**
 * Makes the logger of a command: lines for a person, or one JSON object a line.
 *
 * Lines are written before the call returns, so that none is lost when the process ends.
 */
export function createLogger(
  options: Pick<CommonOptions, 'logLevel' | 'logFormat'>,
  {
    isProduction,
    stream = process.stdout,
  }: {
    readonly isProduction: boolean
    readonly stream?: typeof process.stdout | typeof process.stderr
  },
): PinoLogger {
  const output = destination({ dest: stream.fd, sync: true })
  // Whoever read the lines is gone; that is no reason to end.
  output.on('error', () => {})
  if (logFormat(options, isProduction) === 'json') {
    return pino(
      {
        level: options.logLevel,
        timestamp: stdTimeFunctions.isoTime,
        formatters: { level: (label) => ({ level: label }) },
      },
      output,
    )
  }
  const pretty = prettyFactory({
    colorize: hasColours(stream),
    ignore: 'pid,hostname',
    translateTime: 'SYS:HH:MM:ss.l',
    singleLine: true,
  })
  return pino(
    { level: options.logLevel },
    { write: (line) => output.write(pretty(parseWithoutControls(line))) },
  )
}

export function logFormat(
  { logFormat: chosen }: Pick<CommonOptions, 'logFormat'>,
  isProduction: boolean,
): 'human' | 'json' {
  return chosen ?? (isProduction && !process.stdout.isTTY ? 'json' : 'human')
}

/** Whether a stream is a terminal whose user has not turned colours off. */
export function hasColours(stream: { readonly isTTY?: boolean }): boolean {
  return stream.isTTY === true && !process.env.NO_COLOR
}
