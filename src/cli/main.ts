import { styleText } from 'node:util'
import { Command, CommanderError } from 'commander'
import { backendCommands } from './backend-commands.ts'
import { hasColours } from './create-logger.ts'
import { describeError } from './describe-error.ts'
import {
  addCommonOptions,
  addListenOptions,
  type CommonOptions,
  readConcurrency,
} from './options.ts'
import type { RunScriptOptions } from './run-script.ts'
import type { RunServerOptions } from './run-server.ts'
import type { RunWorkerOptions } from './run-worker.ts'
import type { RunWebSocketServerOptions } from './run-ws-server.ts'
import { version } from './version.ts'

/**
 * Runs a command line.
 *
 * @returns the exit code: 0, 2 for wrong use or a wrong config, 1 for anything else that failed.
 */
export async function main(args: readonly string[]): Promise<number> {
  let exitCode = 0
  const program = createProgram((code) => {
    exitCode = code
  })
  try {
    await program.parseAsync(args, { from: 'user' })
    return exitCode
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return 0
    if (error instanceof CommanderError && error.code === 'commander.help') return 2
    const { line, hint, exitCode } = describeError(error)
    const [errorWord, hintWord] = hasColours(process.stderr)
      ? [styleText('red', 'error:'), styleText('cyan', 'hint:')]
      : ['error:', 'hint:']
    process.stderr.write(`${errorWord} ${line}\n${hintWord} ${hint}\n`)
    if (wantsStack(args) && error instanceof Error) process.stderr.write(`${stacks(error)}\n`)
    return exitCode
  }
}

/** Each command is imported when it is run, so that help and faults of use come at once. */
function createProgram(onExit: (exitCode: number) => void): Command {
  const program = new Command('channelkit')
    .description(
      'Realtime that survives deploys: interface servers hold the sockets, workers run the code.',
    )
    .version(version, '--version', 'print the version')
    .helpOption('--help', 'print this help')
    .helpCommand(false)
    .enablePositionalOptions()
    .exitOverride()
    .configureOutput({ outputError: () => {} })
    .addHelpText(
      'after',
      `
Examples:
  channelkit runserver                   everything in one process, on http://localhost:8000
  channelkit runserver --no-worker       the servers in one process,
  channelkit runworker                   and workers beside it, as many as there is work for
  channelkit runwsserver --port 9000     WebSockets alone, beside a web server of your own
  channelkit channels                    what waits, for how long, and who consumes it
  channelkit send orders '{"id": 1}'     a message from the shell
  channelkit run scripts/remind.ts       a script, say by cron

channelkit COMMAND --help tells more about a command.`,
    )

  const runserver = addListenOptions(
    command('runserver', 'serve HTTP and WebSocket and run a worker, in one process'),
    8000,
  )
    .option('--no-worker', 'run no worker; start channelkit runworker beside it')
    .action(async (options: RunServerOptions) => {
      const { runServer } = await import('./run-server.ts')
      onExit(await runServer(options))
    })

  const runwsserver = addListenOptions(command('runwsserver', 'serve WebSocket alone'), 9000)
    .option('--accept-all', 'serve HTTP through channels too')
    .action(async (options: RunWebSocketServerOptions) => {
      const { runWebSocketServer } = await import('./run-ws-server.ts')
      onExit(await runWebSocketServer(options))
    })

  const runworker = command('runworker', 'run consumers; start as many as there is work for')
    .option(
      '--concurrency <number>',
      'most consumers that run at once (default: 100)',
      readConcurrency,
    )
    .option('--channel-backend <name>', 'the backend whose channels it consumes', 'default')
    .action(async (options: RunWorkerOptions) => {
      const { runWorker } = await import('./run-worker.ts')
      onExit(await runWorker(options))
    })

  const migrate = command(
    'migrate',
    'make the tables of the backends, or bring them up to date',
  ).action(async (options: CommonOptions) => {
    const { migrate: run } = await import('./migrate.ts')
    onExit(await run(options))
  })

  const run = command('run', 'run a script with the site loaded, and end with it')
    .usage('[options] <script> [-- args...]')
    .argument(
      '<script>',
      'TypeScript or JavaScript module; a function it exports as default is called',
    )
    .argument('[args...]', 'what the script finds in process.argv')
    .passThroughOptions()
    .action(async (script: string, args: readonly string[], options: RunScriptOptions) => {
      const { runScript } = await import('./run-script.ts')
      onExit(await runScript(script, args, options))
    })

  for (const [each, examples] of [
    [runserver, ['channelkit runserver', 'channelkit runserver --host 0.0.0.0 --port 80']],
    [
      runwsserver,
      ['channelkit runwsserver', 'channelkit runwsserver --unix-socket /run/site/ws.sock'],
    ],
    [
      runworker,
      [
        'channelkit runworker',
        'channelkit runworker --concurrency 10 --channel-backend thumbnails',
      ],
    ],
    [migrate, ['channelkit migrate', 'NODE_ENV=production channelkit migrate']],
    [
      run,
      [
        'channelkit run scripts/remind.ts',
        'channelkit run --config /srv/site scripts/remind.ts -- --days 3',
      ],
    ],
    ...backendCommands(command, onExit),
  ] as const) {
    addCommonOptions(each)
    each.addHelpText('after', `\nExamples:\n${examples.map((line) => `  ${line}`).join('\n')}`)
    program.addCommand(each)
  }
  return program

  function command(name: string, description: string): Command {
    return new Command(name)
      .description(description)
      .helpOption('--help', 'print this help')
      .copyInheritedSettings(program)
  }
}

function wantsStack(args: readonly string[]): boolean {
  return args.join(' ').replace('=', ' ').includes('--log-level debug')
}

function stacks(error: Error): string {
  const causes = error.cause instanceof Error ? `\ncaused by ${stacks(error.cause)}` : ''
  return `${error.stack ?? error.message}${causes}`
}
