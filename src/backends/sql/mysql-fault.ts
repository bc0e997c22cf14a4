import { ChannelkitError, isChannelkitError } from '../../errors.ts'
import { isUnreachable, type ServerFaults, unexplained } from './server-client.ts'

const lockWaitTimeout = 'ER_LOCK_WAIT_TIMEOUT'
const passing = new Set([lockWaitTimeout, 'ER_LOCK_DEADLOCK', 'ER_CHECKREAD'])
const ended = new Set([
  'ER_SERVER_SHUTDOWN',
  'ER_QUERY_INTERRUPTED',
  'ER_NEW_ABORTING_CONNECTION',
  'ER_CONNECTION_KILLED',
])

const readOnly = new Set([
  'ER_OPTION_PREVENTS_STATEMENT',
  'ER_READ_ONLY_MODE',
  'ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION',
])
const takesNoWrites = 'takes no writes, as a replica does not; name the primary'

const explanations: Readonly<Record<string, string>> = {
  ER_ACCESS_DENIED_ERROR: 'refuses this user or its password; give the right ones',
  ER_DBACCESS_DENIED_ERROR: 'does not let this user into the database; GRANT it access',
  ER_TABLEACCESS_DENIED_ERROR:
    'does not allow what is needed; GRANT SELECT, INSERT, UPDATE, DELETE on the tables, and to the one who runs "channelkit migrate" CREATE and INDEX',
  ER_BAD_DB_ERROR: 'has no such database; create it',
  ER_CON_COUNT_ERROR:
    'has no connection left; raise its max_connections, or lower poolSize in every process of the site',
  ER_OPTION_PREVENTS_STATEMENT: takesNoWrites,
  ER_READ_ONLY_MODE: takesNoWrites,
  ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION: takesNoWrites,
  ER_MAX_PREPARED_STMT_COUNT_REACHED:
    'keeps no more statements prepared; raise its max_prepared_stmt_count, by 200 for each connection of each process',
  ER_RECORD_FILE_FULL: 'has no room on its disk; make some, and sending goes on by itself',
}

function codeOf(error: unknown): string {
  const code = (error as { readonly code?: unknown } | null)?.code
  return typeof code === 'string' ? code : ''
}

export const mysqlFaults: ServerFaults = {
  isPassing: (error) => passing.has(codeOf(error)),

  isTableMissing: (error) => codeOf(error) === 'ER_NO_SUCH_TABLE',

  isConnectionLost(error) {
    if (isChannelkitError(error)) return false
    if ((error as { readonly fatal?: unknown } | null)?.fatal === true) return true
    const code = codeOf(error)
    return !code.startsWith('ER_') || ended.has(code)
  },

  isReadOnly: (error) => readOnly.has(codeOf(error)),

  isUnreachable,

  ours(error, server, busyMs) {
    if (isChannelkitError(error)) return error
    const code = codeOf(error)
    const explanation =
      code === lockWaitTimeout
        ? `was locked by other processes of this site for ${busyMs} ms; end what holds it, or raise busyMs`
        : (explanations[code] ?? unexplained(error, this.isConnectionLost(error)))
    return new ChannelkitError('ERR_BACKEND_UNAVAILABLE', `${server} ${explanation}`, {
      cause: error,
    })
  },
}
