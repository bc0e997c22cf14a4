import { printTable } from './print-table.ts'
import { type BackendCommandOptions, printJson, withSharedBackend } from './shared-backend.ts'

/** `channelkit groups`: every group with members, and how many. */
export function showGroups(options: BackendCommandOptions): Promise<number> {
  return withSharedBackend(options, 'groups', async (backend) => {
    const groups = [...(await backend.groups())].sort(
      (a, b) => b.members - a.members || (a.group < b.group ? -1 : 1),
    )
    if (options.json) printJson(groups)
    else if (groups.length === 0) process.stdout.write('no group has members\n')
    else {
      printTable(
        ['group', 'members'],
        groups.map(({ group, members }) => [group, members]),
      )
    }
    return 0
  })
}
