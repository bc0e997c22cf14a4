import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type { ChannelBackend, OutgoingMessage } from 'channelkit/backend'

const script = fileURLToPath(new URL('./delivery-process.ts', import.meta.url))

/** One run of a job that came to its end. */
export interface Done {
  readonly n: number
  readonly attempts: number
  readonly pid: number
  /** In milliseconds since the epoch. */
  readonly at: number
}

/** Worker processes on the channel `jobs`, see `delivery-process.ts`. */
export class DeliveryWorkers {
  readonly #url: string
  readonly #folder: string
  readonly #leaseMs: number
  readonly #concurrency: number
  readonly #children = new Set<ChildProcess>()

  private constructor(url: string, folder: string, leaseMs: number, concurrency: number) {
    this.#url = url
    this.#folder = folder
    this.#leaseMs = leaseMs
    this.#concurrency = concurrency
  }

  static async open(url: string, leaseMs: number, concurrency: number): Promise<DeliveryWorkers> {
    const folder = await mkdtemp(join(tmpdir(), 'channelkit-delivery-'))
    return new DeliveryWorkers(url, folder, leaseMs, concurrency)
  }

  /** Starts a worker, and waits until it receives. */
  async start(): Promise<void> {
    const log = join(this.#folder, 'log')
    const child = fork(script, [this.#url, log, `${this.#leaseMs}`, `${this.#concurrency}`], {
      execArgv: ['--import', 'tsx'],
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    })
    this.#children.add(child)
    await once(child, 'message')
  }

  /** Kills the worker that has run for longest. */
  async killOldest(): Promise<void> {
    const [child] = this.#children
    if (child) await this.#end(child, 'SIGKILL')
  }

  /** Stops the worker that has run for longest, as a deploy does. */
  async stopOldest(): Promise<void> {
    const [child] = this.#children
    if (child) await this.#end(child, 'SIGTERM')
  }

  /** Every run that came to its end, in order. */
  async done(): Promise<readonly Done[]> {
    const text = await readFile(join(this.#folder, 'log'), 'utf8').catch(() => '')
    return text
      .split('\n')
      .slice(0, -1)
      .map((line) => {
        const [n = 0, attempts = 0, pid = 0, at = 0] = line.split(' ').map(Number)
        return { n, attempts, pid, at }
      })
  }

  /** Waits until the jobs `0` to `count - 1` have run, or for `mostMs`. */
  async until(count: number, mostMs: number): Promise<readonly Done[]> {
    for (const deadline = Date.now() + mostMs; ; ) {
      const done = await this.done()
      if (new Set(done.map(({ n }) => n)).size >= count || Date.now() > deadline) return done
      await sleep(50)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const child of this.#children) await this.#end(child, 'SIGKILL')
    await rm(this.#folder, { recursive: true })
  }

  async #end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
    this.#children.delete(child)
    if (child.exitCode !== null || child.signalCode !== null) return
    const exited = once(child, 'exit')
    child.kill(signal)
    await exited
  }
}

/** Sends jobs, waiting wherever the channel is full. */
export async function sendJobs(
  backend: ChannelBackend,
  jobs: readonly OutgoingMessage[],
): Promise<void> {
  for (let left = jobs; left.length > 0; ) {
    const batch = left.slice(0, 200)
    const failures = await backend.send(batch)
    const isFull = failures.every(({ error }) => error.code === 'ERR_CHANNEL_FULL')
    if (!isFull) throw failures[0]?.error
    left = [...failures.map(({ index }) => batch[index] as OutgoingMessage), ...left.slice(200)]
    if (failures.length > 0) await sleep(20)
  }
}

/** What became of so many jobs: how many never ran, and how many runs were one too many. */
export function account(
  done: readonly Done[],
  count: number,
): { readonly missing: number; readonly duplicates: number } {
  const ran = new Set(done.map(({ n }) => n))
  return { missing: count - ran.size, duplicates: done.length - ran.size }
}
