/**
 * Parses a line of the log for a person's terminal, with its control characters made visible: an
 * error may quote what a client sent, and that must neither colour nor move nor forge lines.
 */
export function parseWithoutControls(line: string): object {
  return JSON.parse(line, (key: string, value: unknown) =>
    typeof value === 'string' ? value.replace(controlsOf(key), visible) : value,
  )
}

/** A name that anybody may have made up, without what would colour or move lines. */
export function printable(name: string): string {
  return name.replace(/\p{C}/gu, (character) =>
    Array.from({ length: character.length }, (_, index) => visible(character.slice(index))).join(
      '',
    ),
  )
}

/** The control characters that would be printed as they are. */
function controlsOf(key: string): RegExp {
  if (key === 'stack') return /(?![\n\t])\p{Cc}/gu
  if (key === 'msg') return /\p{Cc}/gu
  // Other texts are printed as JSON, which escapes those before the space itself.
  return /[\x7f-\x9f]/g
}

function visible(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`
}
