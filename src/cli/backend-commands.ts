import type { Command } from 'commander'
import type { DeadLetterCommandOptions } from './dead-letters.ts'
import type { FlushOptions } from './flush.ts'
import { readAt, readDelayMs, readMax } from './options.ts'
import type { SendCommandOptions } from './send.ts'
import type { BackendCommandOptions } from './shared-backend.ts'

/** The commands that look into a backend or send on it, each with its examples. */
export function backendCommands(
  command: (name: string, description: string) => Command,
  onExit: (exitCode: number) => void,
): readonly (readonly [Command, readonly string[]])[] {
  const channels = addBackendOptions(
    command('channels', 'list what waits on channels, for how long, and who consumes it'),
  ).action(async (options: BackendCommandOptions) => {
    const { showChannels } = await import('./show-channels.ts')
    onExit(await showChannels(options))
  })
  const groups = addBackendOptions(
    command('groups', 'list groups and how many members they have'),
  ).action(async (options: BackendCommandOptions) => {
    const { showGroups } = await import('./show-groups.ts')
    onExit(await showGroups(options))
  })
  const processes = addBackendOptions(
    command('processes', 'list the interface servers and workers that are there'),
  ).action(async (options: BackendCommandOptions) => {
    const { showProcesses } = await import('./show-processes.ts')
    onExit(await showProcesses(options))
  })
  const flush = addBackendOptions(
    command('flush', 'delete every message and group of this site, and of no other'),
  )
    .option('--yes', 'do not ask first')
    .action(async (options: FlushOptions) => {
      const { flush: run } = await import('./flush.ts')
      onExit(await run(options))
    })
  const deadLetters = addBackendOptions(
    command('dead-letters', 'list the messages of a channel that were given up, or replay them'),
  )
    .argument('<channel>', 'name of the channel they were sent to')
    .option('--replay', 'send them to the channel again')
    .option('--max <number>', 'most of them, from the oldest on (default: 1000)', readMax)
    .action(async (channel: string, options: DeadLetterCommandOptions) => {
      const { runDeadLetters } = await import('./dead-letters.ts')
      onExit(await runDeadLetters(channel, options))
    })
  const send = addContentOptions(command('send', 'put one message on a channel'))
    .argument('<channel>', 'name of the channel')
    .argument('[json]', 'content, an object; - or nothing reads standard input')
    .option('--delay-ms <number>', 'deliver it so many milliseconds later', readDelayMs)
    .option('--at <time>', 'deliver it at a time like 2030-01-01T08:00:00Z', readAt)
    .option('--id <id>', 'deliver what is sent with this id once')
    .action(async (name: string, json: string | undefined, options: SendCommandOptions) => {
      const { send: run } = await import('./send.ts')
      onExit(await run(name, json, options))
    })
  const cancel = addBackendOptions(command('cancel', 'take back a message for later'))
    .argument('<channel>', 'name of the channel')
    .argument('<id>', 'the id it was sent with, or that send printed')
    .action(async (name: string, id: string, options: BackendCommandOptions) => {
      const { cancel: run } = await import('./cancel.ts')
      onExit(await run(name, id, options))
    })
  const groupSend = addContentOptions(command('group-send', 'send to every member of a group'))
    .argument('<group>', 'name of the group')
    .argument('[json]', 'content, an object; - or nothing reads standard input')
    .action(async (name: string, json: string | undefined, options: SendCommandOptions) => {
      const { groupSend: run } = await import('./send.ts')
      onExit(await run(name, json, options))
    })
  return [
    [channels, ['channelkit channels', 'channelkit channels --channel-backend thumbnails --json']],
    [groups, ['channelkit groups']],
    [processes, ['channelkit processes --json']],
    [flush, ['channelkit flush', 'channelkit flush --yes --channel-backend thumbnails']],
    [
      deadLetters,
      ['channelkit dead-letters invoices', 'channelkit dead-letters invoices --replay --max 10'],
    ],
    [
      send,
      [
        `channelkit send orders '{"id": 1}'`,
        'channelkit send orders --file order.json --json',
        `channelkit send reminders '{"id": 1}' --at 2030-01-01T08:00:00Z --id reminder.1`,
      ],
    ],
    [cancel, ['channelkit cancel reminders reminder.1']],
    [
      groupSend,
      [
        `channelkit group-send chat '{"content": "down for five minutes at noon"}'`,
        'make-report | channelkit group-send reports',
      ],
    ],
  ]
}

function addContentOptions(command: Command): Command {
  return command
    .option('--file <file>', 'file the content is read from')
    .option('--channel-backend <name>', 'the backend it sends on', 'default')
    .option('--json', 'print JSON')
}

function addBackendOptions(command: Command): Command {
  return command
    .option('--channel-backend <name>', 'the backend it looks into', 'default')
    .option('--json', 'print JSON')
}
