import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { RedisBackend, type RedisBackendOptions } from 'channelkit/redis'
import { afterEach, describe, expect, it } from 'vitest'
import { RedisServer } from '../support/redis-server.ts'

const execute = promisify(execFile)

describe('RedisBackend', () => {
  let server: RedisServer | undefined

  afterEach(async () => {
    await server?.[Symbol.asyncDispose]()
  })

  /** Sends, and receives what was sent by another backend of the same options. */
  async function carries(options: RedisBackendOptions): Promise<void> {
    const [sender, receiver] = [new RedisBackend(options), new RedisBackend(options)]
    try {
      const waiting = receiver.receive(['news'], { max: 1, waitMs: 10_000 })
      await sender.send([{ channel: 'news', content: { n: 1 } }])
      expect((await waiting).map(({ content }) => content)).toEqual([{ n: 1 }])
    } finally {
      await sender.close()
      await receiver.close()
    }
  }

  async function failsToOpen(options: RedisBackendOptions): Promise<unknown> {
    const backend = new RedisBackend({ timeoutMs: 2_000, ...options })
    try {
      return await backend.open().catch((error: unknown) => error)
    } finally {
      await backend.close()
    }
  }

  it('connects with a password, and names a wrong one without showing it', async () => {
    server = await RedisServer.start('--requirepass', 'correct')
    const { port } = server

    await carries({ url: `redis://:correct@127.0.0.1:${port}/3` })
    await carries({ url: server.url, password: 'correct' })
    for (const url of [`redis://:guessed@127.0.0.1:${port}`, server.url]) {
      const error = await failsToOpen({ url })
      expect(error).toMatchObject({
        code: 'ERR_INVALID_CONFIG',
        message: expect.stringContaining('user name and password'),
      })
      expect(String(error)).not.toContain('guessed')
    }
  })

  it('needs no more than its prefix, and says so where a user may not run scripts', async () => {
    server = await RedisServer.start()
    const common = ['on', '>secret', '~site:*', '&site:*']
    await server.command(
      'ACL',
      'SETUSER',
      'site',
      ...common,
      '+@all',
      '-@admin',
      '-@dangerous',
      '+info',
    )
    await server.command('ACL', 'SETUSER', 'mute', ...common, '+@all', '-@scripting')
    const at = `@127.0.0.1:${server.port}`

    await carries({ url: `redis://site:secret${at}`, prefix: 'site:' })
    expect(await failsToOpen({ url: `redis://mute:secret${at}`, prefix: 'site:' })).toMatchObject({
      code: 'ERR_INVALID_CONFIG',
      message: expect.stringContaining('EVALSHA'),
    })
    expect(await failsToOpen({ url: `redis://site:secret${at}`, prefix: 'other:' })).toMatchObject({
      code: 'ERR_INVALID_CONFIG',
      message: expect.stringContaining('prefix'),
    })
  })

  it('connects by TLS with the authority it is given, and by no other', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'channelkit-tls-'))
    const [key, cert] = [join(folder, 'key.pem'), join(folder, 'cert.pem')]
    const subject = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost']
    const request = ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', ...subject]
    await execute('openssl', [...request, '-keyout', key, '-out', cert])
    const tls = ['--tls-cert-file', cert, '--tls-key-file', key, '--tls-ca-cert-file', cert]
    server = await RedisServer.start(...tls, '--tls-auth-clients', 'no', '--tls-port')
    const url = `rediss://localhost:${server.tlsPort}`

    await carries({ url, tls: { ca: await readFile(cert) } })
    expect(await failsToOpen({ url })).toMatchObject({
      code: 'ERR_BACKEND_UNAVAILABLE',
      message: expect.stringContaining('certificate'),
    })
    await rm(folder, { recursive: true })
  })

  it('refuses another machine without TLS and password, unless told', () => {
    const url = 'redis://redis.example:6379'

    expect(() => new RedisBackend({ url })).toThrow(/redis\.example can forge messages/)
    for (const options of [{ password: 'secret' }, { allowUnprotected: true }]) {
      expect(() => new RedisBackend({ url, ...options })).not.toThrow()
    }
    expect(() => new RedisBackend({ url: 'rediss://redis.example' })).not.toThrow()
  })
})
