/** Whose fault an error is: the programmer's, the moment's, or the client's. */
export type ErrorCategory = 'programmer' | 'operational' | 'client'

interface ErrorKind {
  readonly category: ErrorCategory
  /** HTTP status a client is answered with when this error ends its request. */
  readonly httpStatus: number
  /** Close code (RFC 6455 section 7.4.1 and the IANA registry) when this error ends its socket. */
  readonly closeCode: number
}

/**
 * Every code Channelkit throws. `docs/errors.md` explains each; a test keeps both lists equal.
 * A code is never reused for another meaning.
 */
export const errorTable = {
  ERR_INVALID_NAME: { category: 'programmer', httpStatus: 500, closeCode: 1011 },
  ERR_INVALID_CONTENT: { category: 'programmer', httpStatus: 500, closeCode: 1011 },
  ERR_CONTENT_TOO_LARGE: { category: 'programmer', httpStatus: 500, closeCode: 1011 },
  ERR_INVALID_CONFIG: { category: 'programmer', httpStatus: 500, closeCode: 1011 },
  ERR_INVALID_ARGUMENT: { category: 'programmer', httpStatus: 500, closeCode: 1011 },
  ERR_NOT_CONFIGURED: { category: 'programmer', httpStatus: 500, closeCode: 1011 },
  ERR_DUPLICATE_CONSUMER: { category: 'programmer', httpStatus: 500, closeCode: 1011 },
  ERR_CONSUMER_NOT_FOUND: { category: 'programmer', httpStatus: 500, closeCode: 1011 },
  ERR_NO_REPLY_CHANNEL: { category: 'programmer', httpStatus: 500, closeCode: 1011 },
  ERR_WRAPPER_MISUSE: { category: 'programmer', httpStatus: 500, closeCode: 1011 },
  ERR_NOT_SUPPORTED: { category: 'programmer', httpStatus: 500, closeCode: 1011 },
  ERR_CHANNEL_FULL: { category: 'operational', httpStatus: 503, closeCode: 1013 },
  ERR_ROLLED_BACK: { category: 'operational', httpStatus: 503, closeCode: 1011 },
  ERR_LOCK_LOST: { category: 'operational', httpStatus: 503, closeCode: 1011 },
  ERR_BACKEND_UNAVAILABLE: { category: 'operational', httpStatus: 503, closeCode: 1013 },
  ERR_SESSION_STORE: { category: 'operational', httpStatus: 503, closeCode: 1011 },
  ERR_BACKEND_CLOSED: { category: 'operational', httpStatus: 503, closeCode: 1012 },
  ERR_BATCH_IN_DOUBT: { category: 'operational', httpStatus: 503, closeCode: 1013 },
  ERR_BAD_REQUEST: { category: 'client', httpStatus: 400, closeCode: 1002 },
  ERR_UNAUTHORIZED: { category: 'client', httpStatus: 401, closeCode: 1008 },
  ERR_FORBIDDEN: { category: 'client', httpStatus: 403, closeCode: 1008 },
  ERR_REQUEST_TOO_LARGE: { category: 'client', httpStatus: 413, closeCode: 1009 },
  ERR_BAD_HANDSHAKE: { category: 'client', httpStatus: 400, closeCode: 1002 },
} as const satisfies Record<string, ErrorKind>

/** One of the codes in `docs/errors.md`; switch on it instead of on the message. */
export type ErrorCode = keyof typeof errorTable

/**
 * The one class of error Channelkit throws. `code` says which, and stays stable across versions;
 * `cause` holds the driver's error where there is one. A signal's own abort reason is never wrapped.
 */
export class ChannelkitError extends Error {
  override readonly name = 'ChannelkitError'
  readonly code: ErrorCode

  constructor(code: ErrorCode, message: string, options?: { readonly cause?: unknown }) {
    super(message, options)
    this.code = code
  }

  get category(): ErrorCategory {
    return errorTable[this.code].category
  }
}

/**
 * Tells whether `error` is a Channelkit error, optionally of one `code`. Works across copies of
 * the package, which `instanceof` does not.
 */
export function isChannelkitError(error: unknown, code?: ErrorCode): error is ChannelkitError {
  if (!(error instanceof Error) || !('code' in error)) return false
  return code === undefined ? Object.hasOwn(errorTable, error.code as string) : error.code === code
}

/** Shows `value` inside an error message: quoted, control characters escaped, at most 80 long. */
export function shown(value: unknown): string {
  const text = typeof value === 'string' ? JSON.stringify(value) : printed(value)
  return text.length <= 80 ? text : `${text.slice(0, 77)}...`
}

/** `String(value)`, which an object without a working `toString` makes throw. */
function printed(value: unknown): string {
  try {
    return String(value)
  } catch {
    return Object.prototype.toString.call(value)
  }
}
