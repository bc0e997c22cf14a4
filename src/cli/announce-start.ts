import { styleText } from 'node:util'
import { hasColours } from './create-logger.ts'
import type { LoadedSite } from './load-site.ts'
import { version } from './version.ts'

/** Tells a person, or a program that reads the log, what a command has started. */
export function announceStart(
  { site, configPath, logger, logFormat }: LoadedSite,
  command: string,
  facts: Readonly<Record<string, string | readonly string[]>>,
): void {
  const all: typeof facts = { ...facts, config: configPath }
  if (logFormat === 'json') {
    logger.info({ command, version, ...all }, `${command} started`)
    return
  }
  const emphasize = (text: string) => (hasColours(process.stdout) ? styleText('bold', text) : text)
  const width = Math.max(...Object.keys(all).map((name) => name.length))
  const lines = Object.entries(all).map(
    ([name, value]) =>
      `  ${name.padEnd(width)}  ${typeof value === 'string' ? value : value.join(', ')}`,
  )
  const mode = site.isProduction ? 'production' : 'development'
  process.stdout.write(
    `${[emphasize(`Channelkit ${version} ${command}, ${mode} mode`), ...lines, 'Ctrl+C stops it.'].join('\n')}\n`,
  )
}
