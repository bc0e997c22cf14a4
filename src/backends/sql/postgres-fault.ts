import { ChannelkitError, isChannelkitError } from '../../errors.ts'
import { isUnreachable, type ServerFaults, unexplained } from './server-client.ts'

// https://www.postgresql.org/docs/current/errcodes-appendix.html
const lockNotAvailable = '55P03'
const readOnly = '25006'
const passing = new Set([lockNotAvailable, '40001', '40P01'])
const missing = new Set(['42P01', '3F000'])

const explanations: Readonly<Record<string, string>> = {
  '28000': 'refuses this user; give the right one, and let it in by pg_hba.conf',
  '28P01': 'refuses the password; give the right one',
  '3D000': 'has no such database; create it with createdb',
  '42501':
    'does not allow what is needed; give this user its own tables, or run "channelkit migrate" as one who may create them, and GRANT SELECT, INSERT, UPDATE, DELETE on them',
  '53100': 'has no room on its disk; make some, and sending goes on by itself',
  '53300':
    'has no connection left; raise its max_connections, or lower poolSize in every process of the site',
  [readOnly]: 'takes no writes, as a standby does not; name the primary',
}

function codeOf(error: unknown): string {
  const code = (error as { readonly code?: unknown } | null)?.code
  return typeof code === 'string' ? code : ''
}

export const postgresFaults: ServerFaults = {
  isPassing: (error) => passing.has(codeOf(error)),

  isTableMissing: (error) => missing.has(codeOf(error)),

  isConnectionLost(error) {
    if (isChannelkitError(error)) return false
    const code = codeOf(error)
    // Every other five-character code is the server's answer; 25P03 ends an idle transaction.
    return !/^[0-9A-Z]{5}$/.test(code) || /^(?:08|57P|25P03)/.test(code)
  },

  isReadOnly: (error) => codeOf(error) === readOnly,

  isUnreachable,

  ours(error, server, busyMs) {
    if (isChannelkitError(error)) return error
    const code = codeOf(error)
    const explanation =
      code === lockNotAvailable
        ? `was locked by other processes of this site for ${busyMs} ms; end what holds it, or raise busyMs`
        : (explanations[code] ?? unexplained(error, this.isConnectionLost(error)))
    return new ChannelkitError('ERR_BACKEND_UNAVAILABLE', `${server} ${explanation}`, {
      cause: error,
    })
  },
}
