import type { Command } from 'commander'
import type { FlushOptions } from './flush.ts'
import type { BackendCommandOptions } from './shared-backend.ts'

/** The commands that look into a backend, each with its examples. */
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
  return [
    [channels, ['channelkit channels', 'channelkit channels --channel-backend thumbnails --json']],
    [groups, ['channelkit groups']],
    [processes, ['channelkit processes --json']],
    [flush, ['channelkit flush', 'channelkit flush --yes --channel-backend thumbnails']],
  ]
}

function addBackendOptions(command: Command): Command {
  return command
    .option('--channel-backend <name>', 'the backend it looks into', 'default')
    .option('--json', 'print JSON')
}
