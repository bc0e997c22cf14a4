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
  { isProduction }: { readonly isProduction: boolean },
): PinoLogger {
  const stdout = destination({ dest: 1, sync: true })
  // Whoever read the lines is gone; that is no reason to end.
  stdout.on('error', () => {})
  if (logFormat(options, isProduction) === 'json') {
    return pino(
      {
        level: options.logLevel,
        timestamp: stdTimeFunctions.isoTime,
        formatters: { level: (label) => ({ level: label }) },
      },
      stdout,
    )
  }
  const pretty = prettyFactory({
    colorize: hasColours(process.stdout),
    ignore: 'pid,hostname',
    translateTime: 'SYS:HH:MM:ss.l',
    singleLine: true,
  })
  return pino(
    { level: options.logLevel },
    { write: (line) => stdout.write(pretty(parseWithoutControls(line))) },
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
