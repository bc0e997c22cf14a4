import { ChannelkitError, shown } from '../../errors.ts'

/** Who makes the tables: their first user, or `channelkit migrate`. */
export type MigrateOption = 'auto' | 'manual'

/**
 * Fills in the default of `migrate`.
 *
 * @throws {ChannelkitError} `ERR_INVALID_CONFIG`
 */
export function checkMigrate(migrate: MigrateOption | undefined): MigrateOption {
  if (migrate === undefined) return process.env.NODE_ENV === 'production' ? 'manual' : 'auto'
  if (migrate === 'auto' || migrate === 'manual') return migrate
  throw new ChannelkitError(
    'ERR_INVALID_CONFIG',
    `migrate is ${shown(migrate)}; give 'auto' or 'manual'`,
  )
}

/** @throws {ChannelkitError} `ERR_INVALID_CONFIG` when an option is no whole number from `least`. */
export function checkServerOption(name: string, value: unknown, least: number): void {
  if (Number.isInteger(value) && (value as number) >= least) return
  throw new ChannelkitError(
    'ERR_INVALID_CONFIG',
    `${name} is ${shown(value)}; give a whole number from ${least}`,
  )
}
