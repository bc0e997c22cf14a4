/**
 * Makes sure that what the tests start is installed. `npm test` runs this first, by plain node, and
 * it is quick when nothing is missing. As root on Debian it installs what is; elsewhere it says
 * what to install and ends the run, since a test that is skipped in silence is no test.
 */
import { spawnSync } from 'node:child_process'
import { accessSync, constants, existsSync, readdirSync } from 'node:fs'
import { delimiter, join } from 'node:path'

/**
 * Each is there when its variable is set, when its command is found in one of the folders, or when it
 * says so itself.
 *
 * @type {readonly {
 *   readonly name: string
 *   readonly variable: string
 *   readonly meaning: string
 *   readonly command?: string
 *   readonly isThere?: () => boolean
 *   readonly packages: readonly string[]
 * }[]}
 */
const services = [
  {
    name: 'Chromium',
    variable: 'CHROMIUM_PATH',
    meaning: 'path of a Chromium or Chrome',
    command: 'chromium',
    packages: ['chromium'],
  },
  {
    name: 'Redis',
    variable: 'REDIS_SERVER',
    meaning: 'path of a redis-server or valkey-server',
    command: 'redis-server',
    packages: ['redis-server'],
  },
  {
    name: 'PostgreSQL',
    variable: 'POSTGRES_BIN',
    meaning: "folder of PostgreSQL's initdb and postgres",
    command: 'initdb',
    packages: ['postgresql'],
  },
  {
    name: 'PgBouncer',
    variable: 'PGBOUNCER',
    meaning: 'path of pgbouncer',
    command: 'pgbouncer',
    packages: ['pgbouncer'],
  },
  {
    name: 'MariaDB',
    variable: 'MARIADB_BIN',
    meaning: "folder of MariaDB's mariadbd and mariadb-install-db",
    command: 'mariadbd',
    packages: ['mariadb-server'],
  },
  {
    name: 'network namespaces',
    variable: 'IP',
    meaning: 'path of ip of iproute2',
    command: 'ip',
    packages: ['iproute2'],
  },
  {
    name: 'nginx',
    variable: 'NGINX',
    meaning: 'path of an nginx',
    command: 'nginx',
    packages: ['nginx-light'],
  },
  {
    name: 'HAProxy',
    variable: 'HAPROXY',
    meaning: 'path of a haproxy',
    command: 'haproxy',
    packages: ['haproxy'],
  },
  {
    name: 'curl',
    variable: 'CURL',
    meaning: 'path of curl',
    command: 'curl',
    packages: ['curl'],
  },
  {
    name: "Python's client of Redis",
    variable: 'PYTHON',
    meaning: 'path of a Python 3 with the package redis',
    isThere: () => spawnSync('/usr/bin/python3', ['-c', 'import redis']).status === 0,
    packages: ['python3-redis'],
  },
]

const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/bin', '/usr/sbin']

/** Where Debian keeps the versions of PostgreSQL. */
const postgresRoot = '/usr/lib/postgresql'

function postgresFolders() {
  return existsSync(postgresRoot)
    ? readdirSync(postgresRoot).map((version) => join(postgresRoot, version, 'bin'))
    : []
}

function hasCommand(command) {
  return [...folders, ...postgresFolders()].some((folder) => {
    try {
      accessSync(join(folder, command), constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}

function findMissing() {
  return services.filter(
    ({ variable, command, isThere = () => hasCommand(command) }) =>
      process.env[variable] === undefined && !isThere(),
  )
}

function install(packages) {
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  for (const args of [['update'], ['install', '-y', '--no-install-recommends', ...packages]]) {
    const { status } = spawnSync('apt-get', ['-qq', ...args], {
      env,
      stdio: ['ignore', 'inherit', 'inherit'],
    })
    if (status !== 0) return
  }
}

let missing = findMissing()
if (missing.length > 0 && process.getuid?.() === 0 && hasCommand('apt-get')) {
  const packages = missing.flatMap((service) => service.packages)
  process.stdout.write(`Installing for the tests: ${packages.join(' ')}\n`)
  install(packages)
  missing = findMissing()
}
if (missing.length > 0) {
  const lines = missing.map(
    ({ name, packages, variable, meaning }) =>
      `  ${name}: install the package ${packages.join(' ')}, or set ${variable} to the ${meaning}`,
  )
  process.stderr.write(`The tests need what is not installed here:\n${lines.join('\n')}\n`)
  process.exitCode = 1
}
