import { execFile, spawn } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { chown, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

const execute = promisify(execFile)

/** A service that a test started for itself, in a folder that goes with it. */
export interface StartedService {
  /** Folder of its Unix socket: it listens on no port. */
  readonly folder: string
  [Symbol.asyncDispose](): Promise<void>
}

/** Starts a Redis that keeps nothing, on the Unix socket `redis.sock` in its folder. */
export async function startRedis(): Promise<StartedService> {
  const folder = await mkdtemp(join(tmpdir(), 'channelkit-redis-'))
  const args = ['--port', '0', '--unixsocket', join(folder, 'redis.sock')]
  const settings = ['--save', '', '--appendonly', 'no', '--dir', folder]
  const command = process.env.REDIS_SERVER ?? 'redis-server'
  return start(command, [...args, ...settings], folder, /Ready to accept connections/i)
}

/** Starts a PostgreSQL with a database `postgres`, on a Unix socket in its folder. */
export async function startPostgres(): Promise<StartedService> {
  const folder = await mkdtemp(join(tmpdir(), 'channelkit-postgres-'))
  const owner = await postgresOwner()
  if (owner.uid !== undefined) await chown(folder, owner.uid, owner.gid ?? owner.uid)
  const bin = postgresFolder()
  const data = join(folder, 'data')
  const initialize = ['-D', data, '-U', 'postgres', '-A', 'trust', '--no-sync', '-E', 'UTF8']
  await execute(join(bin, 'initdb'), initialize, owner)
  const settings = ["listen_addresses=''", `unix_socket_directories='${folder}'`, 'fsync=off']
  const args = ['-D', data, ...settings.flatMap((setting) => ['-c', setting.replaceAll("'", '')])]
  return start(join(bin, 'postgres'), args, folder, /ready to accept connections/, owner)
}

interface Owner {
  readonly uid?: number
  readonly gid?: number
}

/** PostgreSQL does not run as root, so root runs it as the user of Debian's package. */
async function postgresOwner(): Promise<Owner> {
  if (userInfo().uid !== 0) return {}
  const [uid, gid] = await Promise.all(
    ['-u', '-g'].map((flag) => execute('id', [flag, 'postgres'])),
  )
  return { uid: Number(uid?.stdout), gid: Number(gid?.stdout) }
}

function postgresFolder(): string {
  if (process.env.POSTGRES_BIN !== undefined) return process.env.POSTGRES_BIN
  const root = '/usr/lib/postgresql'
  const newest = readdirSync(root).sort((a, b) => Number(b) - Number(a))[0]
  return join(root, String(newest), 'bin')
}

function start(
  command: string,
  args: readonly string[],
  folder: string,
  ready: RegExp,
  owner: Owner = {},
): Promise<StartedService> {
  const child = spawn(command, args, { ...owner, stdio: ['ignore', 'pipe', 'pipe'] })
  const exited = new Promise<void>((resolve) => {
    child.once('exit', () => resolve())
    child.once('error', () => resolve())
  })
  let output = ''
  return new Promise((resolve, reject) => {
    const read = (chunk: Buffer): void => {
      output += chunk
      if (!ready.test(output)) return
      resolve({
        folder,
        async [Symbol.asyncDispose]() {
          child.kill('SIGINT')
          await exited
          await rm(folder, { recursive: true, force: true })
        },
      })
    }
    child.stdout.on('data', read)
    child.stderr.on('data', read)
    child.once('error', reject)
    void exited.then(() => reject(new Error(`${command} ended; it said: ${output}`)))
  })
}
