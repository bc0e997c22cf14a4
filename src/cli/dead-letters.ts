import { type DeadLetter, deadLetters, replayDeadLetters } from '../dead-letters.ts'
import { printTable } from './print-table.ts'
import { type BackendCommandOptions, printJson, withSharedBackend } from './shared-backend.ts'

export interface DeadLetterCommandOptions extends BackendCommandOptions {
  readonly replay?: boolean
  readonly max?: number
}

const longestShown = 60

/** `channelkit dead-letters`: lists what was given up of a channel, or sends it again. */
export function runDeadLetters(
  channel: string,
  options: DeadLetterCommandOptions,
): Promise<number> {
  return withSharedBackend(options, 'dead-letters', async (backend) => {
    const chosen = { backend, ...(options.max !== undefined && { max: options.max }) }
    if (options.replay) {
      const replayed = await replayDeadLetters(channel, chosen)
      if (options.json) printJson({ channel, replayed })
      else process.stdout.write(`sent ${replayed.toLocaleString('en')} again to ${channel}\n`)
      return 0
    }
    const letters = await deadLetters(channel, chosen)
    if (options.json) printJson(letters.map(withBytesAsText))
    else if (letters.length === 0) process.stdout.write(`${channel} has no dead letters\n`)
    else printTable(['failed at', 'attempts', 'error', 'content'], letters.map(rowOf))
    return 0
  })
}

function rowOf(letter: DeadLetter): readonly (string | number)[] {
  const { failedAt, attempts, error } = letter
  const text = JSON.stringify(withBytesAsText(letter).content)
  const at = new Date(failedAt).toISOString()
  return [at, attempts, shortened(`${error.name}: ${error.message}`), shortened(text)]
}

/** Bytes are shown in base64. */
function withBytesAsText(letter: DeadLetter): DeadLetter {
  const text = JSON.stringify(letter, (_key, value: unknown) =>
    value instanceof Uint8Array ? Buffer.from(value).toString('base64') : value,
  )
  return JSON.parse(text) as DeadLetter
}

function shortened(text: string): string {
  return text.length <= longestShown ? text : `${text.slice(0, longestShown - 3)}...`
}
