import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { createClient } from 'redis'
import type { OwnNetwork } from './network.ts'
import { redisCommand } from './service-process.ts'

/** A Redis on a port of its own, which a test may kill, stop and start again. */
export class RedisServer {
  readonly port: number
  readonly folder: string
  readonly #settings: readonly string[]
  readonly #network: OwnNetwork | undefined
  #child: ChildProcess | undefined

  private constructor(
    port: number,
    folder: string,
    settings: readonly string[],
    network?: OwnNetwork,
  ) {
    this.port = port
    this.folder = folder
    this.#settings = settings
    this.#network = network
  }

  /**
   * @param settings - further arguments, such as `--requirepass`, `secret`. Where the last is
   *   `--tls-port`, a port is added to it.
   */
  static async start(...settings: readonly string[]): Promise<RedisServer> {
    const folder = await mkdtemp(join(tmpdir(), 'channelkit-redis-'))
    const isSecure = settings.at(-1) === '--tls-port'
    const all = isSecure ? [...settings, String(await freePort())] : settings
    const server = new RedisServer(await freePort(), folder, all)
    await server.start()
    return server
  }

  /** One on another machine, as far as the network goes; its password is `secret`. */
  static async startIn(network: OwnNetwork): Promise<RedisServer> {
    const folder = await mkdtemp(join(tmpdir(), 'channelkit-redis-'))
    const server = new RedisServer(6_379, folder, ['--requirepass', 'secret'], network)
    await server.start()
    return server
  }

  /** A sentinel that watches `master` as `mymaster`, alone. */
  static async startSentinel(master: RedisServer): Promise<RedisServer> {
    const folder = await mkdtemp(join(tmpdir(), 'channelkit-redis-'))
    const file = join(folder, 'sentinel.conf')
    await writeFile(
      file,
      [
        `sentinel monitor mymaster 127.0.0.1 ${master.port} 1`,
        'sentinel down-after-milliseconds mymaster 1000',
        'sentinel failover-timeout mymaster 5000',
        '',
      ].join('\n'),
    )
    const server = new RedisServer(await freePort(), folder, [file, '--sentinel'])
    await server.start()
    return server
  }

  /** What a sentinel knows of `mymaster`. */
  async sentinelInfo(): Promise<string> {
    const fields = (await this.command('SENTINEL', 'MASTER', 'mymaster')) as unknown[]
    return fields.map((value, index) => `${value}${index % 2 === 0 ? ' ' : '\n'}`).join('')
  }

  get url(): string {
    if (this.#network) return `redis://:secret@${this.#network.address}:${this.port}`
    return `redis://127.0.0.1:${this.port}`
  }

  get tlsPort(): number {
    return Number(this.#settings.at(-1))
  }

  /** Starts it again, with the data that it wrote into its folder. */
  async start(): Promise<void> {
    const host = this.#network?.address ?? '127.0.0.1'
    const own = ['--port', String(this.port), '--dir', this.folder, '--bind', host]
    const isSentinel = this.#settings.includes('--sentinel')
    const args = isSentinel
      ? [...this.#settings, ...own]
      : [...own, '--save', '', '--appendfsync', 'always', ...this.#settings]
    const command = this.#network ? ['ip', 'netns', 'exec', this.#network.name] : []
    const [program = '', ...rest] = [...command, redisCommand, ...args]
    const child = spawn(program, rest, { stdio: ['ignore', 'pipe', 'inherit'] })
    this.#child = child
    let output = ''
    await new Promise<void>((resolve, reject) => {
      child.stdout.on('data', (chunk: Buffer) => {
        output += chunk
        if (/Ready to accept connections|Sentinel ID is/i.test(output)) resolve()
      })
      child.once('error', reject)
      child.once('exit', () => reject(new Error(`${redisCommand} ended; it said: ${output}`)))
    })
  }

  /** SIGSTOP and SIGCONT return at once; any other signal is waited for. */
  async signal(signal: NodeJS.Signals): Promise<void> {
    const child = this.#child
    if (!child || child.exitCode !== null || child.signalCode !== null) return
    child.kill(signal)
    if (signal !== 'SIGSTOP' && signal !== 'SIGCONT') await once(child, 'exit')
  }

  /** Runs one command. */
  async command(...args: readonly string[]): Promise<unknown> {
    const client = createClient({ url: this.url, RESP: 2 })
    client.on('error', () => {})
    await client.connect()
    try {
      return await client.sendCommand(args)
    } finally {
      client.destroy()
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.signal('SIGKILL')
    await rm(this.folder, { recursive: true, force: true })
  }
}

/** Masters of a cluster that share the slots, each with as many replicas. */
export async function startRedisCluster(
  masters = 3,
  replicas = 0,
): Promise<readonly RedisServer[]> {
  const settings = ['--cluster-enabled', 'yes', '--cluster-node-timeout', '2000']
  const servers = await Promise.all(
    Array.from({ length: masters * (1 + replicas) }, () => RedisServer.start(...settings)),
  )
  try {
    await joinCluster(servers, masters)
  } catch (error) {
    for (const server of servers) await server[Symbol.asyncDispose]()
    throw error
  }
  return servers
}

async function joinCluster(servers: readonly RedisServer[], masters: number): Promise<void> {
  const [first, ...others] = servers as [RedisServer, ...RedisServer[]]
  for (const other of others) {
    await other.command('CLUSTER', 'MEET', '127.0.0.1', String(first.port))
  }
  for (const [index, server] of servers.slice(0, masters).entries()) {
    const [from, to] = [index, index + 1].map((n) => Math.floor((n * 16_384) / masters))
    const slots = Array.from({ length: Number(to) - Number(from) }, (_, n) =>
      String(Number(from) + n),
    )
    await server.command('CLUSTER', 'ADDSLOTS', ...slots)
  }
  await untilEach(servers, async (server) => {
    const nodes = String(await server.command('CLUSTER', 'NODES'))
    return nodes.trim().split('\n').length === servers.length && !/handshake/.test(nodes)
  })
  for (const [index, server] of servers.slice(masters).entries()) {
    const master = servers[index % masters] as RedisServer
    await server.command('CLUSTER', 'REPLICATE', String(await master.command('CLUSTER', 'MYID')))
  }
  await untilEach(servers, async (server) => {
    const info = String(await server.command('CLUSTER', 'INFO'))
    const replication = String(await server.command('INFO', 'replication'))
    return /cluster_state:ok/.test(info) && !/master_link_status:down/.test(replication)
  })
}

async function untilEach(
  servers: readonly RedisServer[],
  isReached: (server: RedisServer) => Promise<boolean>,
): Promise<void> {
  for (const server of servers) {
    for (let tries = 0; !(await isReached(server)); tries++) {
      if (tries === 400) throw new Error('the cluster did not come together')
      await sleep(25)
    }
  }
}

/** A port whose number leaves room for that of the cluster's bus, 10,000 above. */
async function freePort(): Promise<number> {
  for (;;) {
    const server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    const address = server.address()
    server.close()
    await once(server, 'close')
    if (typeof address === 'object' && address && address.port < 55_000) return address.port
  }
}
