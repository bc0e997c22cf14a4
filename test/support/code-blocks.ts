import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** A block of code in a page. */
export interface CodeBlock {
  /** The heading it stands under. */
  readonly heading: string
  /** What its first line, a comment, calls it: a file's name as a rule. */
  readonly caption: string
  readonly code: string
}

/** Reads a page of this repository, by its path from the root. */
export function readPage(path: string): Promise<string> {
  return readFile(fileURLToPath(new URL(`../../${path}`, import.meta.url)), 'utf8')
}

/** The blocks of TypeScript and JavaScript in a page, which all begin with `// caption`. */
export async function codeBlocks(path: string): Promise<CodeBlock[]> {
  const blocks: CodeBlock[] = []
  let heading = ''
  const page = await readPage(path)
  for (const match of page.matchAll(/^#+ (.+)$|^```(?:ts|js)\n([\s\S]*?)^```$/gm)) {
    const [, newHeading, code] = match
    if (newHeading !== undefined) heading = newHeading
    if (code === undefined) continue
    const caption = /^\/\/ (.+)\n/.exec(code)?.[1]
    if (caption === undefined) {
      throw new Error(`a block under "${heading}" of ${path} does not begin with // and its file`)
    }
    blocks.push({ heading, caption, code })
  }
  return blocks
}

/** Writes blocks into a folder of their own, later ones of a name over earlier ones. */
export async function writeBlocks(
  blocks: readonly CodeBlock[],
): Promise<{ readonly folder: string; [Symbol.asyncDispose](): Promise<void> }> {
  const folder = await mkdtemp(join(tmpdir(), 'channelkit-docs-'))
  for (const { caption, code } of blocks) await writeFile(join(folder, caption), code)
  return {
    folder,
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true }),
  }
}
