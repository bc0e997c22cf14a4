import type { Content } from './content.ts'
import { ChannelkitError, shown } from './errors.ts'

/**
 * What a message's content must be like for a route to take it: each key must be there and match.
 *
 * `path` as a string is exact, but for `/:name`, which takes one segment, and a `*` at its end,
 * which takes the rest. A regular expression may have named groups; elsewhere strings are exact.
 */
export interface RouteFilter {
  readonly path?: string | RegExp
  readonly [key: string]: string | RegExp | undefined
}

/** The parameters that a pattern names: `PathParams<'/rooms/:room'>` has `room`. */
export type PathParams<Path> = Path extends string
  ? string extends Path
    ? Readonly<Record<string, string>>
    : { readonly [Name in ParamNames<Path>]: string }
  : Readonly<Record<string, string>>

type ParamNames<Path extends string> = Path extends `${string}/:${infer Rest}`
  ? Rest extends `${infer Name}/${infer Tail}`
    ? Name | ParamNames<`/${Tail}`>
    : Rest
  : never

/** Tells whether a content passes, and what its path's parameters are. */
export type FilterMatch = (
  content: Content,
  path: string | undefined,
) => { readonly params: Readonly<Record<string, string>>; readonly rest: string } | undefined

/**
 * Prepares a filter.
 *
 * @param isPrefix - whether `path` may go on, at a `/`, behind what the filter says of it.
 * @throws {ChannelkitError} `ERR_INVALID_CONFIG` for groups without a name, and for what is
 *   neither string nor regular expression.
 */
export function compileFilter(filter: RouteFilter, isPrefix: boolean): FilterMatch {
  const others: [key: string, expression: RegExp][] = []
  let pathExpression: RegExp | undefined
  for (const [key, value] of Object.entries(filter)) {
    if (value === undefined) continue
    if (key === 'path') pathExpression = pathPattern(value, isPrefix)
    else others.push([key, valuePattern(key, value)])
  }
  return (content, path) => {
    let params: Record<string, string> = {}
    for (const [key, expression] of others) {
      const value = content[key]
      if (typeof value !== 'string') return undefined
      const match = expression.exec(value)
      if (!match) return undefined
      params = { ...params, ...match.groups }
    }
    if (!pathExpression) return { params, rest: path ?? '' }
    const match = path === undefined ? undefined : pathExpression.exec(path)
    if (!match || path === undefined || (isPrefix && match.index !== 0)) return undefined
    const rest = path.slice(match.index + match[0].length)
    return {
      params: { ...params, ...match.groups },
      rest: rest.startsWith('/') ? rest : `/${rest}`,
    }
  }
}

function pathPattern(path: string | RegExp, isPrefix: boolean): RegExp {
  if (typeof path !== 'string') return namedOnly('path', path)
  if (!path.startsWith('/')) throw invalid(`the path of a route is ${shown(path)}; begin it with /`)
  const isOpen = path.endsWith('*')
  const plain = isPrefix ? path.replace(/\/$/, '') : path
  const segments = (isOpen ? plain.slice(0, -1) : plain).split('/').map((segment) => {
    if (/^:[A-Za-z_]\w*$/.test(segment)) return `(?<${segment.slice(1)}>[^/]+)`
    if (/^:|\*/.test(segment)) {
      throw invalid(
        `the path of a route is ${shown(path)}; write parameters as /:name, and * only at its end`,
      )
    }
    return segment.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&')
  })
  const end = isPrefix ? '(?=/|$)' : isOpen ? '' : '$'
  return makePattern(`^${segments.join('/')}${end}`, path)
}

function makePattern(source: string, path: string): RegExp {
  try {
    return new RegExp(source)
  } catch (cause) {
    throw new ChannelkitError(
      'ERR_INVALID_CONFIG',
      `the path of a route is ${shown(path)}; give each parameter a name of its own`,
      { cause },
    )
  }
}

function valuePattern(key: string, value: unknown): RegExp {
  if (value instanceof RegExp) return namedOnly(key, value)
  if (typeof value === 'string') {
    return new RegExp(`^${value.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&')}$`)
  }
  throw invalid(`the filter of a route has ${key} ${shown(value)}; give a string or an expression`)
}

/** Without state between its uses, and with names for all its groups. */
function namedOnly(key: string, value: unknown): RegExp {
  if (!(value instanceof RegExp)) {
    throw invalid(
      `the filter of a route has ${key} ${shown(value)}; give a string or an expression`,
    )
  }
  const found = new RegExp(`${value.source}|`, value.flags.replace(/[gy]/g, '')).exec('')
  if ((found?.length ?? 1) - 1 !== Object.keys(found?.groups ?? {}).length) {
    throw invalid(
      `the filter of a route has ${key} ${String(value)}; name its groups, (?<name>…), or leave them uncaught, (?:…)`,
    )
  }
  return new RegExp(value.source, value.flags.replace(/[gy]/g, ''))
}

function invalid(message: string): ChannelkitError {
  return new ChannelkitError('ERR_INVALID_CONFIG', message)
}
