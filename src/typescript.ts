import { existsSync } from 'node:fs'
import module from 'node:module'
import { dirname, join } from 'node:path'
import { resolveSync } from './internal/module-syntax-hook.ts'

let isEnabled = false

/**
 * Lets `import()` load TypeScript from here on, unless the process was started so that it can. The
 * `tsconfig.json` that counts is the site's own, whatever folder the process was started in.
 */
export async function enableTypeScript(root: string): Promise<void> {
  if (isEnabled || process.execArgv.some((argument) => argument.includes('tsx'))) return
  isEnabled = true
  // Run from source, this file was loaded by what loads TypeScript already.
  if (import.meta.url.endsWith('.ts')) return
  const { register } = await import('tsx/esm/api')
  register({ tsconfig: findUpwards(root, ['tsconfig.json']) ?? false })
  // Registered last, it is asked first, and tsx compiles what it says is a module as one.
  if ('registerHooks' in module) (module as WithHooks).registerHooks({ resolve: resolveSync })
  else module.register('./internal/module-syntax-hook.js', import.meta.url)
}

/** Node 22.15 and later. */
interface WithHooks {
  registerHooks(hooks: { readonly resolve: typeof resolveSync }): void
}

/** The first of `names` that is there in `from` or a folder above it. */
export function findUpwards(from: string, names: readonly string[]): string | undefined {
  for (let folder = from; ; folder = dirname(folder)) {
    for (const name of names) {
      const file = join(folder, name)
      if (existsSync(file)) return file
    }
    if (folder === dirname(folder)) return undefined
  }
}
