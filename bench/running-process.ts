import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import type { Measured, Usage } from './measured-server.ts'

const microsPerTick = 10_000
const bytesPerPage = 4_096

/** A program of somebody else that listens on a port; its CPU time and memory are Linux's account. */
export class RunningProcess implements Measured {
  readonly port: number
  readonly #child: ChildProcess

  private constructor(child: ChildProcess, port: number) {
    this.#child = child
    this.port = port
  }

  /** @param args - made of the port that it is to listen on. */
  static async start(
    command: string,
    args: (port: number) => readonly string[],
    options: { readonly cwd?: string; readonly env?: NodeJS.ProcessEnv } = {},
  ): Promise<RunningProcess> {
    const port = await freePort()
    const child = spawn(command, args(port), {
      ...options,
      env: { ...process.env, ...options.env },
      stdio: ['ignore', 'ignore', 'inherit'],
    })
    for (let tries = 0; tries < 200; tries++) {
      if (child.exitCode !== null) throw new Error(`${command} ended with ${child.exitCode}`)
      if (await isListening(port)) return new RunningProcess(child, port)
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    child.kill('SIGKILL')
    throw new Error(`${command} does not listen on ${port}`)
  }

  async usage(): Promise<Usage> {
    const folder = `/proc/${this.#child.pid}`
    const stat = await readFile(`${folder}/stat`, 'utf8')
    // Behind the command's name, which may have spaces.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    const pages = (await readFile(`${folder}/statm`, 'utf8')).split(' ')
    return {
      cpuMicros: (Number(fields[11]) + Number(fields[12])) * microsPerTick,
      rssBytes: Number(pages[1]) * bytesPerPage,
    }
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null) return
    const gone = once(this.#child, 'exit')
    this.#child.kill('SIGKILL')
    await gone
  }
}

async function freePort(): Promise<number> {
  const server = createServer()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  return typeof address === 'object' && address ? address.port : 0
}

function isListening(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: '127.0.0.1' })
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
}
