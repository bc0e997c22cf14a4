import { createHash } from 'node:crypto'

/** What the processes of one site share on a server beside its tables. */
export interface PostgresNames {
  /** Name of its notifications: letters, digits and `_`. */
  readonly signName: string
  /** Number of the advisory lock by which its writers take turns. */
  readonly lock: bigint
}

/** Derives them from where its tables stand, whose names have no upper case. */
export function postgresNames(schema: string, tablePrefix: string): PostgresNames {
  const hash = createHash('sha256').update(`${schema}.${tablePrefix.toLowerCase()}`).digest()
  return {
    signName: `channelkit_${hash.toString('hex', 0, 12)}`,
    lock: hash.readBigInt64BE(0),
  }
}
