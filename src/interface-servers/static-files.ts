import { existsSync, realpathSync } from 'node:fs'
import { realpath } from 'node:fs/promises'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { join, relative, resolve, sep } from 'node:path'
import { contentType } from 'mime-types'
import send from 'send'
import { ChannelkitError, shown } from '../errors.ts'
import type { Logger } from '../logger.ts'
import { answer } from './http-exchange.ts'

interface Folder {
  readonly prefix: string
  /** Its real path, without links. */
  readonly root: string
}

/** Files that were compressed beforehand, best first: `a.js.br` beside `a.js`. */
const encodings = [
  { name: 'br', extension: '.br' },
  { name: 'gzip', extension: '.gz' },
] as const

/**
 * Serves folders of files under URL prefixes, through `send`: conditional requests, ranges and types
 * are its business. Only GET and HEAD; no dotfiles, no listings, nothing outside the folder, neither
 * by `..` nor by a symbolic link.
 */
export class StaticFiles {
  readonly #folders: readonly Folder[]
  readonly #isProduction: boolean
  readonly #logger: Logger

  /**
   * @param folders - URL prefix like `/static/` → folder, relative to `root`.
   * @throws {ChannelkitError} `ERR_INVALID_CONFIG` naming a bad prefix or a missing folder.
   */
  constructor(
    folders: Readonly<Record<string, string>>,
    options: { readonly root: string; readonly isProduction: boolean; readonly logger: Logger },
  ) {
    this.#isProduction = options.isProduction
    this.#logger = options.logger
    this.#folders = Object.entries(folders).map(([prefix, folder]) => {
      const path = resolve(options.root, folder)
      if (!/^\/([^?#]*\/)?$/.test(prefix)) {
        throw new ChannelkitError(
          'ERR_INVALID_CONFIG',
          `staticFiles has the prefix ${shown(prefix)}; begin and end it with /`,
        )
      }
      if (!existsSync(path)) {
        throw new ChannelkitError(
          'ERR_INVALID_CONFIG',
          `staticFiles serves ${prefix} from ${path}, which does not exist; give a folder`,
        )
      }
      return { prefix, root: realpathSync(path) }
    })
  }

  /** Answers a request under one of the prefixes; false when it is none of them. */
  serve(request: IncomingMessage, response: ServerResponse): boolean {
    const { url = '' } = request
    const folder = this.#folders.find(({ prefix }) => url.startsWith(prefix))
    if (!folder) return false
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      answer(response, 405, 'Method Not Allowed', { allow: 'GET, HEAD' })
      return true
    }
    this.#serveFrom(folder, request, response).catch((error: unknown) => {
      this.#logger.error({ err: error, path: url }, 'a static file could not be served')
      answer(response, 500, 'Internal Server Error')
    })
    return true
  }

  async #serveFrom(
    folder: Folder,
    request: IncomingMessage,
    response: ServerResponse,
  ): Promise<void> {
    const [urlPath = ''] = (request.url as string).split('?', 1)
    const path = decodedPath(urlPath.slice(folder.prefix.length))
    const asked = path === undefined ? undefined : await realFile(folder, path)
    if (asked === undefined) {
      answer(response, 404, 'Not Found')
      return
    }
    const encoded = this.#isProduction && (await encodedFile(folder, asked, request))
    if (encoded) {
      response.setHeader('Content-Encoding', encoded.encoding)
      response.setHeader(
        'Content-Type',
        contentType(extensionOf(asked)) || 'application/octet-stream',
      )
    }
    if (this.#isProduction) response.setHeader('Vary', 'Accept-Encoding')
    // In development a file is asked for anew each time; unchanged, it costs a 304.
    else response.setHeader('Cache-Control', 'no-cache')
    const file = encoded ? encoded.path : asked
    send(request, file.split(sep).map(encodeURIComponent).join('/'), {
      root: folder.root,
      dotfiles: 'deny',
      index: false,
      cacheControl: this.#isProduction,
    })
      .on('directory', () => redirectToFolder(urlPath, response))
      .on('error', (error: FileError) => this.#fail(error, request, response))
      .pipe(response)
  }

  #fail(error: FileError, request: IncomingMessage, response: ServerResponse): void {
    const status = error.status ?? 500
    if (status >= 500) {
      this.#logger.error({ err: error, path: request.url }, 'a static file could not be read')
    }
    if (response.headersSent) {
      response.destroy()
      return
    }
    const hidden = status === 403 ? 404 : status
    const range = error.headers?.['Content-Range']
    answer(response, hidden, pages[hidden] ?? 'Internal Server Error', {
      ...(range !== undefined && { 'content-range': range }),
    })
  }
}

/** What `send` fails with, by its http-errors. */
interface FileError extends Error {
  readonly status?: number
  readonly headers?: Readonly<Record<string, string>>
}

const pages: Readonly<Record<number, string>> = {
  400: 'Bad Request',
  404: 'Not Found',
  412: 'Precondition Failed',
  416: 'Range Not Satisfiable',
}

/** The path within the folder; undefined for one that names no file anybody may have. */
function decodedPath(path: string): string | undefined {
  let decoded: string
  try {
    decoded = decodeURIComponent(path)
  } catch {
    return undefined
  }
  const parts = decoded.split(/[/\\]/)
  const isHidden = parts.some((part) => part.startsWith('.'))
  return isHidden || decoded.includes('\0') || decoded.startsWith('/') ? undefined : decoded
}

/**
 * The path, below the folder's root and without links, of a file or of a folder's `index.html`;
 * undefined when it is not there, or lies elsewhere.
 */
async function realFile(folder: Folder, path: string): Promise<string | undefined> {
  const isFolder = path === '' || path.endsWith('/')
  const found = await realpath(join(folder.root, isFolder ? `${path}index.html` : path)).catch(
    () => undefined,
  )
  if (!found?.startsWith(folder.root + sep)) return undefined
  const real = relative(folder.root, found)
  return real.split(sep).some((part) => part.startsWith('.')) ? undefined : real
}

/** The file's compressed twin that the client takes. */
async function encodedFile(
  folder: Folder,
  file: string,
  { headers }: IncomingMessage,
): Promise<{ readonly path: string; readonly encoding: string } | undefined> {
  const accepted = new Set(
    String(headers['accept-encoding'] ?? '')
      .split(',')
      .filter((each) => !/;\s*q=0(\.0*)?\s*$/.test(each))
      .map((each) => each.split(';', 1)[0]?.trim().toLowerCase()),
  )
  for (const { name, extension } of encodings) {
    if (!accepted.has(name)) continue
    const path = await realFile(folder, file + extension)
    if (path !== undefined) return { path, encoding: name }
  }
  return undefined
}

function extensionOf(file: string): string {
  return file.slice(file.lastIndexOf('.'))
}

/** So that links in the folder's index lead where they should. */
function redirectToFolder(urlPath: string, response: ServerResponse): void {
  // With two slashes in front it would be another host.
  const location = `/${urlPath.replace(/^\/+/, '')}/`
  answer(response, 301, `Moved to ${location}`, { location })
}
