import { Backend, type CreateStore, type Fault, storesOf } from './backend.ts'
import { channelFaults } from './channels.ts'
import { contentFaults } from './contents.ts'
import { groupFaults } from './groups.ts'
import { inboxFaults } from './inboxes.ts'
import { laterFaults } from './later.ts'
import { lifecycleFaults } from './lifecycle.ts'
import { limitFaults } from './limits.ts'
import { lineFaults } from './lines.ts'
import { nameFaults } from './names.ts'
import { processAndFigureFaults } from './processes-and-figures.ts'

/** A backend without a fault, made like the faulty ones. */
export const faultless: CreateStore = storesOf(Backend)

/** One small fault each, and exactly the clauses it breaks. */
export const faults: readonly Fault[] = [
  ...nameFaults,
  ...channelFaults,
  ...contentFaults,
  ...limitFaults,
  ...laterFaults,
  ...groupFaults,
  ...inboxFaults,
  ...lineFaults,
  ...processAndFigureFaults,
  ...lifecycleFaults,
]
