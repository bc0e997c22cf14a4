import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'

export interface Usage {
  readonly cpuMicros: number
  readonly rssBytes: number
}

/** A process whose CPU time and memory count. */
export interface Measured {
  readonly port: number
  usage(request?: 'usage' | 'gc'): Promise<Usage>
  stop(): Promise<void>
}

/** A server in a process of its own, whose CPU time and memory can be asked for. */
export class MeasuredServer implements Measured {
  readonly port: number
  readonly #child: ChildProcess

  private constructor(child: ChildProcess, port: number) {
    this.#child = child
    this.port = port
  }

  static async start(name: string, args: readonly string[] = []): Promise<MeasuredServer> {
    const file = fileURLToPath(new URL(`./servers/${name}.ts`, import.meta.url))
    const child = fork(file, args, {
      execArgv: ['--expose-gc', '--import', 'tsx'],
      // Without the source's path mapping 'channelkit' is the built package, as users run it.
      env: {
        ...process.env,
        TSX_TSCONFIG_PATH: fileURLToPath(new URL('./tsconfig.json', import.meta.url)),
      },
    })
    const ended = once(child, 'exit').then(([code]) => {
      throw new Error(`${name} ended with ${code} before it was ready`)
    })
    const ready = once(child, 'message') as Promise<[{ port: number }]>
    const [{ port }] = await Promise.race([ready, ended])
    return new MeasuredServer(child, port)
  }

  /** CPU time since the process began and resident memory, after a collection with `gc`. */
  async usage(request: 'usage' | 'gc' = 'usage'): Promise<Usage> {
    this.#child.send(request)
    const [usage] = (await once(this.#child, 'message')) as [Usage]
    return usage
  }

  async stop(): Promise<void> {
    const gone = once(this.#child, 'exit')
    this.#child.disconnect()
    await gone
  }
}
