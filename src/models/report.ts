import { currentSite } from '../current-site.ts'

/** Runs what follows a commit, whose failure must not look like one of the saving. */
export async function report(send: () => Promise<void>): Promise<void> {
  try {
    await send()
  } catch (error) {
    const message = 'the groups of a row were not told of its change, which is saved'
    currentSite.optional()?.logger.error({ err: error }, message)
  }
}
