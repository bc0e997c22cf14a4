import { existsSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { resolve } from 'node:path'
import sirv from 'sirv'
import { ChannelkitError, shown } from '../errors.ts'
import { answer } from './http-exchange.ts'

/**
 * Serves folders of files under URL prefixes, through sirv: ETag, ranges and precompressed files are
 * its business. Only GET and HEAD; no dotfiles, no listings, nothing outside the folder.
 */
export class StaticFiles {
  readonly #folders: { readonly prefix: string; readonly serve: ReturnType<typeof sirv> }[]

  /**
   * @param folders - URL prefix like `/static/` → folder, relative to `root`.
   * @throws {ChannelkitError} `ERR_INVALID_CONFIG` naming a bad prefix or a missing folder.
   */
  constructor(folders: Readonly<Record<string, string>>, root: string, isProduction: boolean) {
    this.#folders = Object.entries(folders).map(([prefix, folder]) => {
      const path = resolve(root, folder)
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
      // In development files may come and go; in production they are listed once.
      const serve = sirv(path, { dev: !isProduction, etag: true, dotfiles: false })
      return { prefix, serve }
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
    request.url = url.slice(folder.prefix.length - 1)
    if (
      request.url
        .split('?', 1)[0]
        ?.split('/')
        .some((part) => part.startsWith('.'))
    ) {
      answer(response, 404, 'Not Found')
      return true
    }
    folder.serve(request, response, () => answer(response, 404, 'Not Found'))
    return true
  }
}
