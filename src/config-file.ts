import { existsSync, statSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { type Config, checkConfig } from './config.ts'
import { ChannelkitError, isChannelkitError } from './errors.ts'
import { enableTypeScript, findUpwards } from './typescript.ts'

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
 * @param path - a file, or the folder it stands in; default: the nearest `channels.config.ts`, `.mts`, `.js` or `.mjs` in the working
 *   directory or above it.
 * @param from - where to look instead of the working directory.
 * @throws {ChannelkitError} `ERR_INVALID_CONFIG` naming the file and what is wrong with it.
 */
export async function loadConfigFile(path?: string, from = process.cwd()): Promise<LoadedConfig> {
  const file = path === undefined ? findConfigFile(from) : givenConfigFile(resolve(path))
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

function givenConfigFile(path: string): string {
  if (!statSync(path, { throwIfNoEntry: false })?.isDirectory()) return path
  const file = fileNames.map((name) => join(path, name)).find((candidate) => existsSync(candidate))
  if (file !== undefined) return file
  throw new ChannelkitError(
    'ERR_INVALID_CONFIG',
    `there is no ${fileNames[0]} in the folder ${path}; write one, or name its file by --config`,
  )
}

function findConfigFile(from: string): string {
  const file = findUpwards(from, fileNames)
  if (file !== undefined) return file
  throw new ChannelkitError(
    'ERR_INVALID_CONFIG',
    `there is no ${fileNames[0]} in ${from} or above it; write one, or name it by --config`,
  )
}

function firstLines(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  return `${error.name}: ${error.message}`.split('\n').slice(0, 3).join(' ')
}
