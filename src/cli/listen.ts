import { once } from 'node:events'
import { existsSync, unlinkSync } from 'node:fs'
import type { Server } from 'node:http'
import { connect } from 'node:net'
import { dirname } from 'node:path'
import { CliError } from './cli-error.ts'
import type { ListenOptions } from './options.ts'

/**
 * Makes a server listen.
 *
 * @returns where: a URL, or `unix:` and the path of the socket file.
 */
export async function listen(server: Server, options: ListenOptions): Promise<string> {
  const { unixSocket: path } = options
  try {
    await tryListen(server, options)
  } catch (error) {
    if (path === undefined || codeOf(error) !== 'EADDRINUSE' || (await isAnswering(path))) {
      throw describeFault(error, options)
    }
    // Left behind by a process that was killed.
    unlinkSync(path)
    await tryListen(server, options)
  }
  const address = server.address()
  if (address === null || typeof address === 'string') return `unix:${path}`
  return `http://${urlHost(options.host)}:${address.port}`
}

async function tryListen(server: Server, { unixSocket, port, host }: ListenOptions): Promise<void> {
  if (unixSocket === undefined) server.listen({ port, host })
  else server.listen({ path: unixSocket })
  await once(server, 'listening')
}

async function isAnswering(path: string): Promise<boolean> {
  const socket = connect({ path })
  try {
    await once(socket, 'connect')
    return true
  } catch (error) {
    return codeOf(error) !== 'ECONNREFUSED'
  } finally {
    socket.destroy()
  }
}

function describeFault(cause: unknown, { unixSocket, port, host }: ListenOptions): unknown {
  const fail = (message: string, hint: string) =>
    new CliError(message, { hint, exitCode: 1, cause })
  if (unixSocket !== undefined) {
    switch (codeOf(cause)) {
      case 'EADDRINUSE':
        return fail(
          `another process listens on ${unixSocket}`,
          'stop it, or choose another file by --unix-socket',
        )
      case 'EACCES':
      case 'EPERM':
      case 'ENOENT':
        return existsSync(dirname(unixSocket))
          ? fail(
              `there is no permission to make ${unixSocket}`,
              'choose another folder by --unix-socket',
            )
          : fail(
              `there is no folder for ${unixSocket}`,
              'make it, or choose another one by --unix-socket',
            )
      default:
        return cause
    }
  }
  switch (codeOf(cause)) {
    case 'EADDRINUSE':
      return fail(
        `port ${port} of ${host} is in use`,
        `stop the process that listens there, or choose another port, like --port ${port < 65_535 ? port + 1 : 8000}`,
      )
    case 'EACCES':
    case 'EPERM':
      return fail(
        `there is no permission to listen on port ${port}`,
        'choose a port from 1024, like --port 8000',
      )
    case 'EADDRNOTAVAIL':
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return fail(
        `${JSON.stringify(host)} is no address of this machine`,
        'use --host 127.0.0.1, or --host 0.0.0.0 for every address',
      )
    default:
      return cause
  }
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && 'code' in error ? error.code : undefined
}

function urlHost(host: string): string {
  if (['127.0.0.1', '::1', '0.0.0.0', '::'].includes(host)) return 'localhost'
  return host.includes(':') ? `[${host}]` : host
}
