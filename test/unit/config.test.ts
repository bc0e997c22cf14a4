import { resolve } from 'node:path'
import { type Config, defineConfig } from 'channelkit'
import { describe, expect, it } from 'vitest'
import { loadConfigFile } from '../../src/config-file.ts'

const sites = 'test/support/sites'

describe('defineConfig', () => {
  it('gives back the config', () => {
    const config: Config = { mode: 'production', channelBackends: { default: {} } }

    expect(defineConfig(config)).toBe(config)
  })

  it.each([
    ['null', null, 'the config is null; export default defineConfig({'],
    ['a string', 'memory:', 'the config is "memory:"'],
    [
      'an unknown key',
      { channelBackend: {} },
      'the config has an unknown key "channelBackend"; it may have channelBackends, app, channels, staticFiles, websocket, http, worker, publish, session, auth, mode',
    ],
    [
      'no default backend',
      { channelBackends: { main: {} } },
      'channelBackends has main and no default; name one of them default',
    ],
    [
      'no backend at all',
      { channelBackends: {} },
      'channelBackends has nothing and no default; name one of them default',
    ],
    [
      'backends in a list',
      { channelBackends: [{}] },
      'channelBackends is [object Object]; give { default: { backend, routing } }',
    ],
    [
      'a backend that is a URL',
      { channelBackends: { default: 'memory:' } },
      'channelBackends.default is "memory:"; give { backend, routing }',
    ],
    [
      'a misspelt routing',
      { channelBackends: { default: { rooting: {} } } },
      'channelBackends.default has an unknown key "rooting"; it may have backend, routing',
    ],
    [
      'a misspelt worker setting',
      { worker: { concurency: 5 } },
      'worker has an unknown setting "concurency", which is 5; it may have concurrency, maxRequeues, maxStreams, graceMs, lineLeaseMs, maxTurnMs',
    ],
    ['a number for workers', { worker: 5 }, 'worker is 5; give { concurrency: 10 }'],
    ['channels in a string', { channels: 'x' }, 'channels is "x"; give defineChannels({ … })'],
    ['a channel that is a string', { channels: { jobs: 'x' } }, 'channels["jobs"] is "x"; give'],
    ['a string for sockets', { websocket: 'x' }, 'websocket is "x"; give { allowedOrigins: ['],
    ['null for http', { http: null }, 'http is null; give { maxBodyBytes: 1_000_000 }'],
    ['a lone folder', { staticFiles: 'public' }, `staticFiles is "public"; give { '/static/':`],
    ['no folder', { staticFiles: { '/a/': 5 } }, 'staticFiles["/a/"] is 5; give the path of a'],
    ['an unknown mode', { mode: 'test' }, `mode is "test"; give 'development' or 'production'`],
  ])('refuses %s', (_what, config, message) => {
    expect(() => defineConfig(config as Config)).toThrow(
      expect.objectContaining({
        code: 'ERR_INVALID_CONFIG',
        message: expect.stringContaining(message),
      }),
    )
  })
})

describe('loadConfigFile', () => {
  it('loads a file, with the folder its references start from', async () => {
    const { config, root } = await loadConfigFile(`${sites}/greeting/channels.config.ts`)

    expect(root).toBe(resolve(sites, 'greeting'))
    expect(config.app).toBe('./consumers.ts#app')
  })

  it('finds the file in a folder it is given', async () => {
    const { path } = await loadConfigFile(`${sites}/greeting`)

    expect(path).toBe(resolve(sites, 'greeting/channels.config.ts'))
  })

  it.each([
    [
      '.',
      /^there is no channels\.config\.ts in the folder .*sites; write one, or name its file by/,
    ],
    ['nowhere.ts', /^there is no config file .*nowhere\.ts; check the path given by --config$/],
    ['broken.ts', /cannot be loaded; RangeError: this file cannot be loaded$/],
    ['empty.ts', /exports nothing; export default defineConfig/],
    ['greeting/consumers.ts', /exports app, channelRouting, notAFunction, pass; export default/],
    ['wrong-config.ts', /^the config has an unknown key "backend"/],
  ])('refuses %s', async (file, message) => {
    await expect(loadConfigFile(`${sites}/${file}`)).rejects.toMatchObject({
      code: 'ERR_INVALID_CONFIG',
      message: expect.stringMatching(message),
    })
  })
})
