import { printTable, shownDuration } from './print-table.ts'
import { type BackendCommandOptions, printJson, withSharedBackend } from './shared-backend.ts'
import { shownProcess } from './show-channels.ts'

/** `channelkit processes`: the interface servers and workers that are there. */
export function showProcesses(options: BackendCommandOptions): Promise<number> {
  return withSharedBackend(options, 'processes', async (backend) => {
    const processes = [...(await backend.processes())].sort(
      (a, b) => a.kind.localeCompare(b.kind) || a.startedAt - b.startedAt,
    )
    const now = backend.limits.clock.now()
    if (options.json) printJson(processes)
    else if (processes.length === 0) process.stdout.write('no process is there\n')
    else {
      printTable(
        ['process', 'kind', 'up for', 'consumes'],
        processes.map((info) => [
          shownProcess(info),
          info.kind,
          shownDuration(Math.max(0, now - info.startedAt)),
          info.channels.join(', ') || '-',
        ]),
      )
    }
    return 0
  })
}
