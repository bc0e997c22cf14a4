import { type Consumer, type Given, wrapConsumer } from '../consumer.ts'
import { currentSite } from '../current-site.ts'
import { checkTurn, type Message } from '../message.ts'
import { readHidden, type Session, writeHidden } from '../sessions/session.ts'
import { isSessionKey, type SiteSessions } from '../sessions/site-sessions.ts'
import { isTicket, useTicket } from '../sessions/ticket.ts'
import { addToMessage, isActivity, openChannelSession, stateOf } from './message-state.ts'

/** What {@link httpSession} adds to a message. */
export interface WithHttpSession {
  /** The site's own session of this client; null when it has none. */
  readonly httpSession: Session | null
}

/**
 * Wraps a consumer so that `message.httpSession` is the site's own session, the one its web app
 * knows as `request.session`. It is found by the session cookie, a ticket or, where the config
 * allows it, `?session_key=`; and for later messages of a socket, which carry none of these, by
 * what its handshake had. What the consumer changes in it is saved when it succeeds.
 *
 * @throws {ChannelkitError} when it runs: `ERR_NOT_CONFIGURED`
 */
export function httpSession<M extends Message>(
  consumer: Consumer<Given<M> & WithHttpSession>,
): Consumer<M> {
  const withSession = async (message: M): Promise<void> => {
    const inner = message as Given<M> & WithHttpSession
    if (Object.hasOwn(message, 'httpSession')) return consumer(inner)
    const session = await findHttpSession(message)
    addToMessage(message, 'httpSession', session)
    await consumer(inner)
    const check = (): void => checkTurn(message, 'the HTTP session is not saved')
    if (session) await currentSite().sessions().save(session, check)
  }
  return wrapConsumer(withSession, consumer)
}

/** The site's session of a message's client, looked for once. */
export async function findHttpSession(message: Message): Promise<Session | null> {
  const state = stateOf(message)
  if (state.httpSession !== undefined) return state.httpSession
  const sessions = currentSite().sessions()
  const { content } = message
  const found =
    'cookies' in content
      ? await fromRequest(message, sessions)
      : typeof content.http_session === 'string'
        ? await fromKey(sessions, sessions.passed(content.http_session))
        : await fromChannelSession(message, sessions)
  if (found && isActivity(message)) await sessions.touch(found)
  state.httpSession = found ?? null
  return state.httpSession
}

function fromKey(
  sessions: SiteSessions,
  key: string | undefined,
): Promise<Session | undefined> | undefined {
  return key === undefined ? undefined : sessions.load(key)
}

/** Finds it by what a request or handshake carries, and remembers it for the socket's messages. */
async function fromRequest(message: Message, sessions: SiteSessions): Promise<Session | undefined> {
  const { cookies, get } = message.content as {
    cookies: Readonly<Record<string, string>>
    get?: Readonly<Record<string, readonly string[]>>
  }
  const ticket = get?.ticket?.find(isTicket)
  const keyInUrl = sessions.config.allowSessionKeyInUrl ? get?.session_key?.[0] : undefined
  const isHandshake = message.channel === 'websocket.connect'
  if (isHandshake) forgetSecrets(message)
  // It is good for one look, also where the cookie makes it needless.
  const keyOfTicket =
    ticket === undefined
      ? undefined
      : await useTicket(
          ticket,
          headerOf(message, 'origin'),
          message.backend,
          sessions.config.channelSecrets,
        )
  const found =
    (await fromKey(sessions, sessions.keyFromCookies(cookies, headerOf(message, 'host')))) ??
    (await fromKey(sessions, keyOfTicket)) ??
    (keyInUrl === undefined ? undefined : await sessions.loadNamed(keyInUrl))
  if (isHandshake && found && message.hasReplyChannel) {
    const channel = await openChannelSession(message, 'httpSession')
    writeHidden(channel, 'channelkit:http', found.id)
    await sessions.saveOfChannel(channel)
  }
  // A handshake that is run again carries its ticket no more.
  if (isHandshake && !found) return fromChannelSession(message, sessions)
  return found
}

async function fromChannelSession(
  message: Message,
  sessions: SiteSessions,
): Promise<Session | undefined> {
  if (!message.hasReplyChannel) return undefined
  const key = readHidden(await openChannelSession(message, 'httpSession'), 'channelkit:http')
  return typeof key === 'string' ? sessions.load(key) : undefined
}

/** Takes what must not be shown or logged out of a handshake's content; the rest stays as it was. */
function forgetSecrets(message: Message): void {
  const content = message.content as {
    get?: Record<string, readonly string[]>
    query_string?: string
  }
  for (const [name, isSecret] of secretParameters) {
    const values = content.get?.[name]
    if (!content.get || !values?.some(isSecret)) continue
    const others = values.filter((value) => !isSecret(value))
    if (others.length > 0) content.get[name] = others
    else delete content.get[name]
    const parts = (content.query_string ?? '').split('&')
    const kept = parts.filter((part) => {
      const value = new URLSearchParams(part).get(name)
      return value === null || !isSecret(value)
    })
    content.query_string = kept.join('&')
  }
}

const secretParameters: readonly (readonly [string, (value: string) => boolean])[] = [
  ['ticket', isTicket],
  ['session_key', isSessionKey],
]

function headerOf(message: Message, header: string): string | undefined {
  const { headers } = message.content as { headers?: readonly (readonly [string, string])[] }
  return headers?.find(([name]) => name === header)?.[1]
}
