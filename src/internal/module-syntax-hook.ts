import { readFileSync } from 'node:fs'

/** What a resolve hook of `node:module` gives. */
interface Resolved {
  readonly url: string
  readonly format?: string | null | undefined
}

/** For `module.register`. */
export async function resolve<Context>(
  specifier: string,
  context: Context,
  nextResolve: (specifier: string, context: Context) => Promise<Resolved>,
): Promise<Resolved> {
  return bySyntax(await nextResolve(specifier, context))
}

/** For `module.registerHooks`. */
export function resolveSync<Context>(
  specifier: string,
  context: Context,
  nextResolve: (specifier: string, context: Context) => Resolved,
): Resolved {
  return bySyntax(nextResolve(specifier, context))
}

/**
 * A site's file with `import` or `export` statements is an ES module, even where the `package.json`
 * above it does not say `"type": "module"`, as that of `npm init` does not.
 */
function bySyntax(resolved: Resolved): Resolved {
  if (!resolved.format?.startsWith('commonjs')) return resolved
  const url = resolved.url.replace(/\?.*$/, '')
  if (!/^file:.*\.[jt]sx?$/.test(url) || url.includes('/node_modules/')) return resolved
  return hasModuleSyntax(url) ? { ...resolved, format: 'module' } : resolved
}

function hasModuleSyntax(url: string): boolean {
  try {
    return /^\s*(import|export)\b(?!\s*[(.=])/m.test(readFileSync(new URL(url), 'utf8'))
  } catch {
    return false
  }
}
