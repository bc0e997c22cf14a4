import { existsSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { type Config, checkConfig } from './config.ts'
import { ChannelkitError, isChannelkitError } from './errors.ts'

const fileNames = [
  'channels.config.ts',
  'channels.config.mts',
  'channels.config.js',
  'channels.config.mjs',
]

/** A config and the folder it stands in, from which its references start. */
export interface LoadedConfig {
  readonly config: Config
  readonly root: string
  readonly path: string
}

/**
 * Loads a config file, TypeScript straight from source.
 *
 * @param path - default: the nearest `channels.config.ts`, `.mts`, `.js` or `.mjs` in the working
 *   directory or above it.
 * @throws {ChannelkitError} `ERR_INVALID_CONFIG` naming the file and what is wrong with it.
 */
export async function loadConfigFile(path?: string): Promise<LoadedConfig> {
  const file = path === undefined ? findConfigFile(process.cwd()) : resolve(path)
  if (!existsSync(file)) {
    throw new ChannelkitError(
      'ERR_INVALID_CONFIG',
      `there is no config file ${file}; check the path given by --config`,
    )
  }
  await enableTypeScript(dirname(file))
  let exports: Record<string, unknown>
  try {
    exports = await import(pathToFileURL(file).href)
  } catch (cause) {
    if (isChannelkitError(cause)) throw cause
    throw new ChannelkitError(
      'ERR_INVALID_CONFIG',
      `config file ${file} cannot be loaded; ${firstLines(cause)}`,
      { cause },
    )
  }
  const config = exports.default ?? exports.config
  if (config === undefined) {
    throw new ChannelkitError(
      'ERR_INVALID_CONFIG',
      `config file ${file} exports ${Object.keys(exports).sort().join(', ') || 'nothing'}; export default defineConfig({ … })`,
    )
  }
  checkConfig(config)
  return { config, root: dirname(file), path: file }
}

function findConfigFile(from: string): string {
  const file = findUpwards(from, fileNames)
  if (file !== undefined) return file
  throw new ChannelkitError(
    'ERR_INVALID_CONFIG',
    `there is no ${fileNames[0]} in ${from} or above it; write one, or name it by --config`,
  )
}

let isTypeScriptEnabled = false

/**
 * Lets `import()` load TypeScript from here on, unless the process was started so that it can. The
 * `tsconfig.json` that counts is the site's own, whatever folder the process was started in.
 */
export async function enableTypeScript(root: string): Promise<void> {
  if (isTypeScriptEnabled || process.execArgv.some((argument) => argument.includes('tsx'))) return
  isTypeScriptEnabled = true
  // Run from source, this file was loaded by what loads TypeScript already.
  if (import.meta.url.endsWith('.ts')) return
  const { register } = await import('tsx/esm/api')
  register({ tsconfig: findUpwards(root, ['tsconfig.json']) ?? false })
}

function findUpwards(from: string, names: readonly string[]): string | undefined {
  for (let folder = from; ; folder = dirname(folder)) {
    for (const name of names) {
      const file = join(folder, name)
      if (existsSync(file)) return file
    }
    if (folder === dirname(folder)) return undefined
  }
}

function firstLines(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  return `${error.name}: ${error.message}`.split('\n').slice(0, 3).join(' ')
}
