import type { ChannelBackend } from '../backends/channel-backend.ts'
import { type BackendChoice, chosenBackend } from '../channel.ts'
import { currentSite } from '../current-site.ts'
import { ChannelkitError, shown } from '../errors.ts'
import { parseCookies } from '../http/query.ts'
import { randomName } from '../names.ts'
import type { Secrets } from './signing.ts'
import { isKeyedHash, keyedHash } from './signing.ts'

/** Options of {@link issueTicket}. */
export interface TicketOptions extends BackendChoice {
  /** The origin of the page that will use it: `https://example.com`. It is good for no other. */
  readonly origin: string
  /** How long it is good for, in milliseconds. Default 30,000. */
  readonly expiryMs?: number
}

/** Headers of a request: those of `node:http`, or of `fetch`. */
export type RequestHeaders =
  | { get(name: string): string | null }
  | { readonly [name: string]: string | readonly string[] | undefined; readonly get?: undefined }

/** What says which session a ticket is for. */
export type TicketSource = { readonly id: string } | { readonly headers: RequestHeaders } | string

const purpose = 'ticket'
const channelPrefix = '__channels__.ticket.'

/**
 * Makes a ticket, by which a page on one origin can show its session to a socket on another:
 * `new WebSocket(`wss://sockets.example.com/?ticket=${ticket}`)`. It can be used once, soon, and
 * from that page's origin only, so it does no harm in the log of a proxy.
 *
 * @param session - the site's session, as `request.session` of express-session is, or its key; or
 *   the request itself, whose cookie then says which, as with Better Auth it has to.
 * @throws {ChannelkitError} `ERR_INVALID_ARGUMENT`
 */
export async function issueTicket(session: TicketSource, options: TicketOptions): Promise<string> {
  const key = keyOf(session)
  const origin = normalOrigin(options?.origin)
  if (origin === undefined) {
    throw new ChannelkitError(
      'ERR_INVALID_ARGUMENT',
      `a ticket is asked for the origin ${shown(options?.origin)}; give that of the page, like https://example.com`,
    )
  }
  const { expiryMs = 30_000 } = options
  if (!(expiryMs > 0 && expiryMs <= 600_000)) {
    throw new ChannelkitError(
      'ERR_INVALID_ARGUMENT',
      `a ticket cannot be good for ${shown(expiryMs)} ms; give 1 to 600,000`,
    )
  }
  const [secret] = currentSite().sessions().config.channelSecrets
  const backend = chosenBackend(options.backend)
  const id = randomName()
  // A channel of its own holds it: whoever receives it first has used it, in whatever process.
  const failures = await backend.send([
    {
      channel: channelPrefix + id,
      content: { key },
      expiresAt: backend.limits.clock.now() + expiryMs,
    },
  ])
  if (failures[0]) throw failures[0].error
  return `${id}.${keyedHash(purpose, `${id} ${origin}`, secret)}`
}

const ticketForm = /^([\w-]{22})\.([\w-]{43})$/

/** Whether a text has the form of a ticket. */
export function isTicket(text: string): boolean {
  return ticketForm.test(text)
}

function keyOf(source: TicketSource): string {
  const sessions = currentSite().sessions()
  if (typeof source === 'object' && source !== null && 'headers' in source) {
    const [cookie, host] = ['cookie', 'host'].map((name) => headerIn(source.headers, name))
    const key = sessions.keyFromCookies(parseCookies(cookie), host)
    if (key !== undefined) return key
    throw new ChannelkitError(
      'ERR_INVALID_ARGUMENT',
      'a ticket is asked for a request without a session cookie of this site; ask whether there is a session first',
    )
  }
  if (sessions.auth?.sessions) {
    throw new ChannelkitError(
      'ERR_INVALID_ARGUMENT',
      'a ticket is asked for a session that the auth library keeps, which is found by its cookie alone; give issueTicket the request that carries it, as { headers }',
    )
  }
  const key = typeof source === 'string' ? source : source?.id
  if (typeof key === 'string' && key !== '') return key
  throw new ChannelkitError(
    'ERR_INVALID_ARGUMENT',
    `a ticket is asked for the session ${shown(source)}; give a session or its key`,
  )
}

function headerIn(headers: RequestHeaders, name: string): string | undefined {
  if (typeof headers.get === 'function') return headers.get(name) ?? undefined
  const value = (headers as Readonly<Record<string, unknown>>)[name]
  return typeof value === 'string' ? value : undefined
}

/** Uses a ticket up. @returns the key of its session, or undefined when it is not good. */
export async function useTicket(
  ticket: string,
  origin: string | undefined,
  backend: ChannelBackend,
  secrets: Secrets,
): Promise<string | undefined> {
  const parts = ticketForm.exec(ticket)
  const [, id, hash] = parts ?? []
  const from = normalOrigin(origin)
  if (id === undefined || hash === undefined || from === undefined) return undefined
  if (!isKeyedHash(purpose, `${id} ${from}`, hash, secrets)) return undefined
  const [taken] = await backend.receive([channelPrefix + id], { max: 1, waitMs: 0 })
  const key = taken?.content.key
  return typeof key === 'string' ? key : undefined
}

function normalOrigin(origin: unknown): string | undefined {
  if (typeof origin !== 'string') return undefined
  const parsed = URL.canParse(origin) ? new URL(origin).origin : 'null'
  return parsed === 'null' ? undefined : parsed
}
