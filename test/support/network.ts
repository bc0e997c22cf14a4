import { execFile } from 'node:child_process'
import { promisify } from 'node:util'

const execute = promisify(execFile)

/** A network of its own, with one machine's worth of address in it, that can be cut off. */
export interface OwnNetwork {
  readonly name: string
  /** Where a server in it is reached from outside. */
  readonly address: string
  /** From now on nothing passes, and nobody is told. */
  cut(): Promise<void>
  mend(): Promise<void>
  remove(): Promise<void>
}

/** Makes a network namespace, tied to this one by a pair of virtual cards. Needs root on Linux. */
export async function createNetwork(): Promise<OwnNetwork> {
  const id = process.pid % 60_000
  const name = `channelkit-${id}`
  const [near, far] = [`ckn${id}`, `ckf${id}`]
  const subnet = `10.199.${id % 250}`
  const ip = (...args: readonly string[]): Promise<unknown> => execute(process.env.IP ?? 'ip', args)
  await ip('netns', 'add', name)
  try {
    await ip('link', 'add', near, 'type', 'veth', 'peer', 'name', far, 'netns', name)
    await ip('address', 'add', `${subnet}.1/30`, 'dev', near)
    await ip('-n', name, 'address', 'add', `${subnet}.2/30`, 'dev', far)
    await ip('link', 'set', near, 'up')
    await ip('-n', name, 'link', 'set', far, 'up')
    await ip('-n', name, 'link', 'set', 'lo', 'up')
  } catch (error) {
    await ip('netns', 'delete', name)
    throw error
  }
  return {
    name,
    address: `${subnet}.2`,
    async cut() {
      await ip('-n', name, 'link', 'set', far, 'down')
    },
    async mend() {
      await ip('-n', name, 'link', 'set', far, 'up')
    },
    async remove() {
      await ip('netns', 'delete', name)
    },
  }
}
