import { createHmac, timingSafeEqual } from 'node:crypto'
import { ChannelkitError } from '../errors.ts'

/** A secret, or several while they are rotated: the first signs, all verify. */
export type Secrets = readonly [string, ...string[]]

const shortestSecret = 32

// From the documentation of express-session, Express, cookie-parser and many a tutorial.
const sampleSecret =
  /^(keyboard cat|secret|your[-_ ]?secret.*|my[-_ ]?secret.*|change[-_ ]?me.*|shh+.*|some[-_ ]?secret.*|password.*|test.*|example.*|(.)\2*)$/i

/**
 * Checks secrets.
 *
 * @throws {ChannelkitError} `ERR_INVALID_CONFIG` for none, and in production for one that is short
 *   or stands in the documentation.
 */
export function checkSecrets(name: string, given: unknown, isProduction: boolean): Secrets {
  const secrets: readonly unknown[] = Array.isArray(given) ? given : [given]
  if (!secrets.every((secret) => typeof secret === 'string' && secret !== '') || !secrets[0]) {
    throw new ChannelkitError(
      'ERR_INVALID_CONFIG',
      `${name} is missing or no text; give the secret that signs the session cookie, or a list of them, the newest first`,
    )
  }
  for (const [index, secret] of (secrets as string[]).entries()) {
    if (isProduction && (secret.length < shortestSecret || sampleSecret.test(secret))) {
      throw new ChannelkitError(
        'ERR_INVALID_CONFIG',
        `${name} number ${index + 1} is short or a sample, which anyone can guess; in production give ${shortestSecret} or more random characters`,
      )
    }
  }
  return secrets as unknown as Secrets
}

/** Signs a value as express-session and cookie-signature do. */
export function signCookie(value: string, [secret]: Secrets): string {
  return `s:${value}.${cookieDigest(value, secret).toString('base64').replace(/=+$/, '')}`
}

/**
 * The value in a signed cookie, already percent-decoded.
 *
 * @returns undefined when it is not signed, or by none of the secrets.
 */
export function verifyCookie(cookie: string, secrets: Secrets): string | undefined {
  const end = cookie.lastIndexOf('.')
  if (!cookie.startsWith('s:') || end === -1) return undefined
  const value = cookie.slice(2, end)
  const signature = Buffer.from(cookie.slice(end + 1))
  let isValid = false
  for (const secret of secrets) {
    const expected = Buffer.from(cookieDigest(value, secret).toString('base64').replace(/=+$/, ''))
    if (isSame(expected, signature)) isValid = true
  }
  return isValid ? value : undefined
}

/**
 * A digest of `value` that only who knows the secret can make, as 43 characters of
 * `A-Z a-z 0-9 _ -`. One of another purpose, or a cookie's signature, never equals it.
 */
export function keyedHash(purpose: string, value: string, secret: string): string {
  const key = createHmac('sha256', secret).update(`channelkit ${purpose}`).digest()
  return createHmac('sha256', key).update(value).digest('base64url')
}

/** Whether `hash` is the {@link keyedHash} of `value` by one of the secrets, in constant time. */
export function isKeyedHash(
  purpose: string,
  value: string,
  hash: string,
  secrets: Secrets,
): boolean {
  let isValid = false
  for (const secret of secrets) {
    if (isSame(Buffer.from(keyedHash(purpose, value, secret)), Buffer.from(hash))) isValid = true
  }
  return isValid
}

function cookieDigest(value: string, secret: string): Buffer {
  return createHmac('sha256', secret).update(value).digest()
}

function isSame(expected: Buffer, given: Buffer): boolean {
  return expected.length === given.length && timingSafeEqual(expected, given)
}
