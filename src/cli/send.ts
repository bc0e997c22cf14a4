import { Channel } from '../channel.ts'
import { type Delay, isForLater } from '../delays.ts'
import { Group } from '../group.ts'
import { printable } from './escape-controls.ts'
import { describeBackend } from './load-site.ts'
import { readContent } from './read-content.ts'
import { type BackendCommandOptions, printJson, withSharedBackend } from './shared-backend.ts'

export interface SendCommandOptions extends BackendCommandOptions {
  readonly file?: string
  readonly delayMs?: number
  readonly at?: Date
  readonly id?: string
}

/** `channelkit send`: puts one message at a channel's end. */
export function send(
  name: string,
  json: string | undefined,
  options: SendCommandOptions,
): Promise<number> {
  const { channelBackend, file, delayMs, at, id } = options
  const channel = Channel(name, { backend: channelBackend })
  const delay: Delay = {
    ...(delayMs !== undefined && { delayMs }),
    ...(at !== undefined && { at }),
    ...(id !== undefined && { id }),
  }
  return withSharedBackend(options, 'send', async (backend, { site }) => {
    const content = await readContent({ json, file }, backend.limits.maxContentBytes)
    const processes = await backend.processes()
    const consumedBy = processes.filter(({ channels }) => channels.includes(name)).length
    const sentAs = isForLater(delay) ? await channel.send(content, delay) : undefined
    if (sentAs === undefined) await channel.send(content)
    const isReply = name.includes('!')
    if (options.json) {
      const later = sentAs !== undefined && { id: sentAs }
      printJson({ channel: name, channelBackend, ...(!isReply && { consumedBy }), ...later })
    } else if (sentAs !== undefined) {
      const place = `channel backend ${channelBackend} (${describeBackend(site, channelBackend)})`
      process.stdout.write(`sent ${sentAs} for later to channel ${name} on ${place}\n`)
    } else {
      const nobody = isReply || consumedBy > 0 ? '' : '; no worker consumes it now'
      const place = `channel backend ${channelBackend} (${describeBackend(site, channelBackend)})`
      process.stdout.write(`sent to channel ${name} on ${place}${nobody}\n`)
    }
    return 0
  })
}

/** `channelkit group-send`: gives every member of a group one copy. */
export function groupSend(
  name: string,
  json: string | undefined,
  options: SendCommandOptions,
): Promise<number> {
  const { channelBackend, file } = options
  const group = Group(name, { backend: channelBackend })
  return withSharedBackend(options, 'group-send', async (backend, { site }) => {
    const content = await readContent({ json, file }, backend.limits.maxContentBytes)
    const members = (await group.channels()).length
    await group.send(content)
    if (options.json) printJson({ group: name, channelBackend, members })
    else {
      const count = `${members.toLocaleString('en')} member${members === 1 ? '' : 's'}`
      const place = `channel backend ${channelBackend} (${describeBackend(site, channelBackend)})`
      process.stdout.write(`sent to group ${printable(name)} with ${count} on ${place}\n`)
    }
    return 0
  })
}
