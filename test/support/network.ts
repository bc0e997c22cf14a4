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

const ip = (...args: readonly string[]): Promise<unknown> => execute(process.env.IP ?? 'ip', args)

/** Some machines that reach each other, and this one, through a switch. Needs root on Linux. */
export async function createMachines(count: number): Promise<{
  readonly machines: readonly OwnNetwork[]
  remove(): Promise<void>
}> {
  const id = process.pid % 60_000
  const [bridge, subnet] = [`ckb${id}`, `10.198.${id % 250}`]
  const machines: OwnNetwork[] = []
  const remove = async (): Promise<void> => {
    for (const machine of machines) await machine.remove()
    await ip('link', 'delete', bridge)
  }
  await ip('link', 'add', bridge, 'type', 'bridge')
  try {
    await ip('address', 'add', `${subnet}.1/24`, 'dev', bridge)
    await ip('link', 'set', bridge, 'up')
    for (let number = 2; number < count + 2; number++) {
      const name = `channelkit-${id}-${number}`
      const [near, far] = [`ckm${id}n${number}`, `ckm${id}f${number}`]
      await ip('netns', 'add', name)
      const network = {
        name,
        address: `${subnet}.${number}`,
        cut: async () => void (await ip('link', 'set', near, 'down')),
        mend: async () => void (await ip('link', 'set', near, 'up')),
        remove: async () => void (await ip('netns', 'delete', name)),
      }
      machines.push(network)
      await ip('link', 'add', near, 'type', 'veth', 'peer', 'name', far, 'netns', name)
      await ip('link', 'set', near, 'master', bridge)
      await ip('link', 'set', near, 'up')
      await ip('-n', name, 'address', 'add', `${network.address}/24`, 'dev', far)
      await ip('-n', name, 'link', 'set', far, 'up')
      await ip('-n', name, 'link', 'set', 'lo', 'up')
    }
  } catch (error) {
    await remove()
    throw error
  }
  return { machines, remove }
}

/** Makes a network namespace, tied to this one by a pair of virtual cards. Needs root on Linux. */
export async function createNetwork(): Promise<OwnNetwork> {
  const id = process.pid % 60_000
  const name = `channelkit-${id}`
  const [near, far] = [`ckn${id}`, `ckf${id}`]
  const subnet = `10.199.${id % 250}`
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
