import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { chmod, chown, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'

const execute = promisify(execFile)

/** A service that a test started for itself, in a folder that goes with it. */
export interface StartedService {
  /** Folder of its Unix socket: it listens on no port. */
  readonly folder: string
  /** Of its first process. */
  readonly pid: number
  /** Ends it by a signal. */
  stop(signal: NodeJS.Signals): Promise<void>
  /** Starts it anew on the same data, after `stop`. */
  restart(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

/** The Redis or Valkey that tests start. */
export const redisCommand = process.env.REDIS_SERVER ?? 'redis-server'

/** Starts a Redis that keeps nothing, on the Unix socket `redis.sock` in its folder. */
export async function startRedis(): Promise<StartedService> {
  const folder = await mkdtemp(join(tmpdir(), 'channelkit-redis-'))
  const args = ['--port', '0', '--unixsocket', join(folder, 'redis.sock')]
  const settings = ['--save', '', '--appendonly', 'no', '--dir', folder]
  return start(redisCommand, [...args, ...settings], folder, /Ready to accept connections/i)
}

/**
 * Starts a PostgreSQL with a database `postgres`, on a Unix socket in its folder.
 *
 * @param isDurable - whether it waits for the disk, as outside of tests.
 */
export async function startPostgres(isDurable = false): Promise<StartedService> {
  const folder = await mkdtemp(join(tmpdir(), 'channelkit-postgres-'))
  const owner = await ownerNamed('postgres')
  if (owner.uid !== undefined) await chown(folder, owner.uid, owner.gid ?? owner.uid)
  const bin = postgresFolder()
  const data = join(folder, 'data')
  const initialize = ['-D', data, '-U', 'postgres', '-A', 'trust', '--no-sync', '-E', 'UTF8']
  await execute(join(bin, 'initdb'), initialize, owner)
  const settings = [
    "listen_addresses=''",
    `unix_socket_directories='${folder}'`,
    `fsync=${isDurable ? 'on' : 'off'}`,
  ]
  const args = ['-D', data, ...settings.flatMap((setting) => ['-c', setting.replaceAll("'", '')])]
  return start(join(bin, 'postgres'), args, folder, /ready to accept connections/, owner)
}

/** Starts a PgBouncer in transaction mode before a PostgreSQL, on a Unix socket in its folder. */
export async function startPgbouncer({ folder: server }: StartedService): Promise<StartedService> {
  const folder = await mkdtemp(join(tmpdir(), 'channelkit-pgbouncer-'))
  const owner = await ownerNamed('postgres')
  if (owner.uid !== undefined) await chown(folder, owner.uid, owner.gid ?? owner.uid)
  const users = join(folder, 'users.txt')
  await writeFile(users, '"postgres" ""\n')
  const settings = join(folder, 'pgbouncer.ini')
  await writeFile(
    settings,
    `[databases]
* = host=${server}
[pgbouncer]
listen_addr =
unix_socket_dir = ${folder}
auth_type = trust
auth_file = ${users}
pool_mode = transaction
default_pool_size = 4
`,
  )
  for (const file of [users, settings]) await chmod(file, 0o644)
  const command = process.env.PGBOUNCER ?? '/usr/sbin/pgbouncer'
  return start(command, [settings], folder, /process up/, owner)
}

/**
 * Starts a MariaDB with a database `site` and a user `root` without a password, on the Unix socket
 * `mariadb.sock` in its folder.
 *
 * @param isDurable - whether it waits for the disk, as outside of tests.
 */
export async function startMariadb(isDurable = false): Promise<StartedService> {
  const folder = await mkdtemp(join(tmpdir(), 'channelkit-mariadb-'))
  const owner = await ownerNamed('mysql')
  if (owner.uid !== undefined) await chown(folder, owner.uid, owner.gid ?? owner.uid)
  const bin = process.env.MARIADB_BIN
  const command = (name: string, usual: string) => (bin === undefined ? usual : join(bin, name))
  const data = join(folder, 'data')
  const common = ['--no-defaults', `--datadir=${data}`]
  const initialize = ['--auth-root-authentication-method=normal', '--skip-test-db']
  const install = command('mariadb-install-db', '/usr/bin/mariadb-install-db')
  await execute(install, [...common, ...initialize], { ...owner, cwd: folder })
  const begin = join(folder, 'begin.sql')
  await writeFile(begin, 'CREATE DATABASE IF NOT EXISTS site;\n')
  await chmod(begin, 0o644)
  const args = [
    ...common,
    `--socket=${join(folder, 'mariadb.sock')}`,
    `--pid-file=${join(folder, 'mariadb.pid')}`,
    `--init-file=${begin}`,
    '--skip-networking',
    `--innodb-flush-log-at-trx-commit=${isDurable ? 1 : 2}`,
  ]
  const server = command('mariadbd', '/usr/sbin/mariadbd')
  return start(server, args, folder, /ready for connections/, owner)
}

interface Owner {
  readonly uid?: number
  readonly gid?: number
}

/** Database servers do not run as root, so root runs them as the user of Debian's package. */
async function ownerNamed(name: string): Promise<Owner> {
  if (userInfo().uid !== 0) return {}
  const [uid, gid] = await Promise.all(['-u', '-g'].map((flag) => execute('id', [flag, name])))
  return { uid: Number(uid?.stdout), gid: Number(gid?.stdout) }
}

function postgresFolder(): string {
  if (process.env.POSTGRES_BIN !== undefined) return process.env.POSTGRES_BIN
  const root = '/usr/lib/postgresql'
  const newest = readdirSync(root).sort((a, b) => Number(b) - Number(a))[0]
  return join(root, String(newest), 'bin')
}

async function start(
  command: string,
  args: readonly string[],
  folder: string,
  ready: RegExp,
  owner: Owner = {},
): Promise<StartedService> {
  let running = await startOnce(command, args, ready, owner)
  const stop = async (signal: NodeJS.Signals): Promise<void> => {
    running.child.kill(signal)
    await running.exited
  }
  return {
    folder,
    get pid() {
      return running.child.pid as number
    },
    stop,
    async restart() {
      for (let tries = 1; ; tries++) {
        try {
          running = await startOnce(command, args, ready, owner)
          return
        } catch (error) {
          // What a killed server left behind takes a moment to go.
          if (tries === 20) throw error
          await sleep(250)
        }
      }
    },
    async [Symbol.asyncDispose]() {
      // To PostgreSQL an interrupt is a fast shutdown; MariaDB has no other than this.
      await stop(command.endsWith('mariadbd') ? 'SIGTERM' : 'SIGINT')
      await rm(folder, { recursive: true, force: true })
    },
  }
}

interface Running {
  readonly child: ChildProcess
  readonly exited: Promise<void>
}

function startOnce(
  command: string,
  args: readonly string[],
  ready: RegExp,
  owner: Owner,
): Promise<Running> {
  const child = spawn(command, args, { ...owner, stdio: ['ignore', 'pipe', 'pipe'] })
  const exited = new Promise<void>((resolve) => {
    child.once('exit', () => resolve())
    child.once('error', () => resolve())
  })
  let output = ''
  return new Promise((resolve, reject) => {
    const read = (chunk: Buffer): void => {
      output += chunk
      if (ready.test(output)) resolve({ child, exited })
    }
    child.stdout.on('data', read)
    child.stderr.on('data', read)
    child.once('error', reject)
    void exited.then(() => reject(new Error(`${command} ended; it said: ${output}`)))
  })
}
