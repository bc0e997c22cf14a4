import { ErrorReply, SimpleError } from 'redis'
import { describe, expect, it } from 'vitest'
import { isOutage, replyFault } from '../../../../src/backends/redis/server-check.ts'

// So replies look that Redis before 7 makes of an error of a command within a script.
const wrapped = (reply: string) =>
  `ERR Error running script (call to f_5a3c): @user_script:7: @user_script: 7: -${reply}`

const readOnly = "READONLY You can't write against a read only replica."
const full = "OOM command not allowed when used memory > 'maxmemory'."

describe('isOutage', () => {
  it.each([readOnly, wrapped(readOnly), wrapped('MASTERDOWN Link with MASTER is down')])(
    'says so of %s',
    (reply) => {
      expect(isOutage(new SimpleError(reply))).toBe(true)
    },
  )

  it.each([full, wrapped(full), wrapped('WRONGTYPE Operation against READONLY')])(
    'does not say so of %s',
    (reply) => {
      expect(isOutage(new SimpleError(reply))).toBe(false)
    },
  )
})

describe('replyFault', () => {
  it.each([
    "ERR The user executing the script can't run this command or subcommand script: 5a3c, on @user_script:1.",
    wrapped('NOPERM this user has no permissions to run the command'),
    "ERR Error running script (call to f_5a3c): @user_script:1: The user executing the script can't access at least one of the keys mentioned in the command arguments",
    'NOPERM No permissions to access a channel',
  ])('says what to allow of %s', (reply) => {
    const fault = replyFault(new ErrorReply(reply), 'here')

    expect(fault.code).toBe('ERR_INVALID_CONFIG')
    expect(fault.message).toContain('allow this user scripts')
  })

  it.each([full, wrapped(full)])('says what to do about %s', (reply) => {
    expect(replyFault(new ErrorReply(reply), 'here').message).toContain('raise its maxmemory')
  })
})
