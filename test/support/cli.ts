import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

/** The folder of this repository. */
export const repository = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/$/, '')

const bin = join(repository, 'dist/cli/bin.js')
const longestWaitMs = 20_000

/** How a command is started. */
export interface CliOptions {
  readonly cwd?: string
  readonly env?: NodeJS.ProcessEnv
  /** The machine it runs on, by the name of its network namespace. */
  readonly machine?: string | undefined
}

/** What a command that has ended left behind. */
export interface CliResult {
  readonly exitCode: number | null
  readonly stdout: string
  readonly stderr: string
}

/** The built command line as a process of its own. */
export class Cli {
  readonly process: ChildProcess
  stdout = ''
  stderr = ''
  #onOutput: () => void = () => {}

  constructor(args: readonly string[], { cwd = tmpdir(), env = {}, machine }: CliOptions = {}) {
    const place = machine === undefined ? [] : ['ip', 'netns', 'exec', machine]
    const [program = '', ...rest] = [...place, process.execPath, bin, ...args]
    this.process = spawn(program, rest, {
      cwd,
      env: { ...withoutTestRunner(process.env), ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    this.process.stdout?.on('data', (chunk) => {
      this.stdout += chunk
      this.#onOutput()
    })
    this.process.stderr?.on('data', (chunk) => {
      this.stderr += chunk
      this.#onOutput()
    })
    this.process.on('close', () => this.#onOutput())
  }

  /** Waits until the standard output has a match. */
  async waitFor(pattern: RegExp): Promise<RegExpExecArray> {
    const deadline = AbortSignal.timeout(longestWaitMs)
    for (;;) {
      const match = pattern.exec(this.stdout)
      if (match) return match
      if (deadline.aborted || this.process.exitCode !== null) {
        throw new Error(`no ${pattern} in the output:\n${this.stdout}${this.stderr}`)
      }
      await new Promise<void>((resolve) => {
        this.#onOutput = resolve
        deadline.addEventListener('abort', () => resolve(), { once: true })
      })
    }
  }

  /** Waits until it listens; `http://localhost:PORT`. */
  async url(): Promise<string> {
    const [, url = ''] = await this.waitFor(/"?listening"?[: ]+"?(\S+:\d+)/)
    return url.replace(/^ws:/, 'http:')
  }

  /** Waits until it has started. */
  async started(): Promise<this> {
    await this.waitFor(/Ctrl\+C stops it|"\w+ started"/)
    return this
  }

  kill(signal: NodeJS.Signals): void {
    this.process.kill(signal)
  }

  async ended(): Promise<CliResult> {
    if (this.process.exitCode === null && this.process.signalCode === null) {
      const late = sleep(longestWaitMs, 'late', { ref: false })
      if ((await Promise.race([once(this.process, 'close'), late])) === 'late') {
        throw new Error(`the process does not end; it printed:\n${this.stdout}${this.stderr}`)
      }
    }
    return { exitCode: this.process.exitCode, stdout: this.stdout, stderr: this.stderr }
  }
}

/** A site in a folder of its own, with `channelkit` installed as a link to this repository. */
export interface SiteFolder {
  readonly path: string
  /** Starts a command there; it is killed when the folder is disposed of. */
  start(...args: readonly string[]): Cli
  startWith(env: NodeJS.ProcessEnv, ...args: readonly string[]): Cli
  startOn(machine: string, ...args: readonly string[]): Cli
  /** Runs a command there to its end. */
  run(...args: readonly string[]): Promise<CliResult>
  write(files: Readonly<Record<string, string>>): Promise<void>
  dispose(): Promise<void>
}

/**
 * Makes a site.
 *
 * @param files - path → text; `package.json` says that they are ES modules unless it is among them.
 */
export async function createSiteFolder(
  files: Readonly<Record<string, string>>,
): Promise<SiteFolder> {
  const path = await mkdtemp(join(tmpdir(), 'channelkit-site-'))
  const started: Cli[] = []
  const startAs = (options: CliOptions, args: readonly string[]): Cli => {
    const cli = new Cli(args, { cwd: path, ...options })
    started.push(cli)
    return cli
  }
  const startWith = (env: NodeJS.ProcessEnv, ...args: readonly string[]): Cli =>
    startAs({ env }, args)
  const write = async (texts: Readonly<Record<string, string>>): Promise<void> => {
    for (const [file, text] of Object.entries(texts)) {
      await mkdir(dirname(join(path, file)), { recursive: true })
      await writeFile(join(path, file), text)
    }
  }
  await write({ 'package.json': '{ "type": "module" }', ...files })
  await mkdir(join(path, 'node_modules'))
  await symlink(repository, join(path, 'node_modules/channelkit'))
  return {
    path,
    startWith,
    startOn: (machine, ...args) => startAs({ machine }, args),
    start: (...args) => startWith({}, ...args),
    run: (...args) => startWith({}, ...args).ended(),
    write,
    async dispose() {
      for (const { process: child } of started) child.kill('SIGKILL')
      await Promise.all(started.map((cli) => cli.ended()))
      await rm(path, { recursive: true })
    },
  }
}

/** An environment in which a process does not take itself for part of the test run. */
export function withoutTestRunner(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const own = Object.entries(env).filter(([name]) => !/^(VITEST|TEST$|NODE_ENV$)/.test(name))
  return Object.fromEntries(own)
}
