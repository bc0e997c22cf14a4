import { createInterface } from 'node:readline/promises'
import type { ChannelBackend } from '../backends/channel-backend.ts'
import { CliError } from './cli-error.ts'
import { describeBackend } from './load-site.ts'
import { type BackendCommandOptions, printJson, withSharedBackend } from './shared-backend.ts'

export interface FlushOptions extends BackendCommandOptions {
  readonly yes?: boolean
}

/** What there was to delete. */
interface Flushed {
  readonly messages: number
  readonly channels: number
  readonly groups: number
  readonly members: number
  readonly processes: number
}

/** `channelkit flush`: deletes every message, group and announcement of this site. */
export function flush(options: FlushOptions): Promise<number> {
  const { channelBackend: name } = options
  return withSharedBackend(options, 'flush', async (backend, { site }) => {
    const place = `channel backend ${name} (${describeBackend(site, name)})`
    if (!options.yes) {
      if (!process.stdin.isTTY) {
        throw new CliError(`flush deletes every message and group of this site on ${place}`, {
          hint: 'add --yes when that is wanted',
          exitCode: 2,
        })
      }
      const question = `Delete ${sentence(await count(backend))} on ${place}? [y/N] `
      if (!/^y(es)?$/i.test((await ask(question)).trim())) {
        process.stderr.write('nothing was deleted\n')
        return 1
      }
    }
    const flushed = await count(backend)
    await backend.flush()
    if (options.json) printJson(flushed)
    else process.stdout.write(`deleted ${sentence(flushed)} on ${place}\n`)
    return 0
  })
}

async function count(backend: ChannelBackend): Promise<Flushed> {
  const [channels, groups] = [await backend.channels(), await backend.groups()]
  return {
    messages: channels.reduce((sum, { waiting }) => sum + waiting, 0),
    channels: channels.length,
    groups: groups.length,
    members: groups.reduce((sum, { members }) => sum + members, 0),
    processes: (await backend.processes()).length,
  }
}

function sentence({ messages, channels, groups, members, processes }: Flushed): string {
  const some = (number: number, noun: string, plural = `${noun}s`): string =>
    `${number.toLocaleString('en')} ${number === 1 ? noun : plural}`
  return [
    `${some(messages, 'message')} on ${some(channels, 'channel')}`,
    `${some(groups, 'group')} with ${some(members, 'member')}`,
    some(processes, 'announcement of a process', 'announcements of processes'),
  ].join(', ')
}

/** An empty answer at the end of the input. */
async function ask(question: string): Promise<string> {
  const terminal = createInterface({ input: process.stdin, output: process.stderr })
  try {
    const ended = new Promise<string>((resolve) => terminal.once('close', () => resolve('')))
    return await Promise.race([terminal.question(question), ended])
  } finally {
    terminal.close()
  }
}
