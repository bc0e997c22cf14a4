import type { Clause } from './clause.ts'
import { channelClauses } from './clauses/channels.ts'
import { contentClauses } from './clauses/contents.ts'
import { delayClauses } from './clauses/delays.ts'
import { figureClauses } from './clauses/figures.ts'
import { groupClauses } from './clauses/groups.ts'
import { holdClauses } from './clauses/holds.ts'
import { inboxClauses } from './clauses/inboxes.ts'
import { lifecycleClauses } from './clauses/lifecycle.ts'
import { limitClauses } from './clauses/limits.ts'
import { lineClauses } from './clauses/lines.ts'
import { nameClauses } from './clauses/names.ts'
import { processClauses } from './clauses/processes.ts'

const letters = 'NCDAGRLPSX'

/** Every clause of `docs/backend-contract.md`, in its order. */
export const channelBackendClauses: readonly Clause[] = Object.freeze(
  [
    ...nameClauses,
    ...channelClauses,
    ...contentClauses,
    ...limitClauses,
    ...delayClauses,
    ...holdClauses,
    ...groupClauses,
    ...inboxClauses,
    ...lineClauses,
    ...processClauses,
    ...figureClauses,
    ...lifecycleClauses,
  ].sort((a, b) => place(a) - place(b)),
)

function place({ id }: Clause): number {
  return letters.indexOf(id.charAt(0)) * 1_000 + Number(id.slice(1))
}
