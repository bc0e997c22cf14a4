import { styleText } from 'node:util'
import { hasColours } from './create-logger.ts'
import { printable } from './escape-controls.ts'

/** Prints rows for a person: columns as wide as need be, numbers at their right. */
export function printTable(
  columns: readonly string[],
  rows: readonly (readonly (string | number)[])[],
): void {
  const texts = rows.map((row) =>
    row.map((cell) => (typeof cell === 'number' ? cell.toLocaleString('en') : printable(cell))),
  )
  const widths = columns.map((column, index) =>
    Math.max(column.length, ...texts.map((row) => row[index]?.length ?? 0)),
  )
  const isNumber = columns.map((_column, index) => typeof rows[0]?.[index] === 'number')
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, index) => {
        const width = widths[index] ?? 0
        return isNumber[index] ? cell.padStart(width) : cell.padEnd(width)
      })
      .join('  ')
      .trimEnd()
  const head = line(columns)
  const lines = [hasColours(process.stdout) ? styleText('bold', head) : head, ...texts.map(line)]
  process.stdout.write(`${lines.join('\n')}\n`)
}

/** How long something has lasted, to a person. */
export function shownDuration(ms: number): string {
  const seconds = ms / 1_000
  if (seconds < 100) return `${seconds.toFixed(1)} s`
  const minutes = Math.round(seconds / 60)
  if (minutes < 100) return `${minutes} min`
  const hours = Math.round(minutes / 60)
  return hours < 100 ? `${hours} h` : `${Math.round(hours / 24)} days`
}
