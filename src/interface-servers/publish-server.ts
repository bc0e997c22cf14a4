import { createHash, timingSafeEqual } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { ChannelBackend } from '../backends/channel-backend.ts'
import type { ChannelDeclaration } from '../channel-types.ts'
import { ChannelkitError, type ErrorCode, errorTable, isChannelkitError, shown } from '../errors.ts'
import type { PublishGrant, ResolvedPublishSettings } from '../publish-settings.ts'
import { answer, readOff } from './http-exchange.ts'
import type { Hub } from './hub.ts'
import { checkMessages, type PublishedMessage, PublishFault, parseBody } from './publish-body.ts'
import { RequestBody } from './request-body.ts'
import { unsupported } from './unsupported.ts'

/** What these mean where a program's message has them, and not the site's own code. */
const statuses: Partial<Record<ErrorCode, number>> = {
  ERR_INVALID_NAME: 422,
  ERR_INVALID_CONTENT: 422,
  ERR_INVALID_ARGUMENT: 422,
  ERR_NOT_SUPPORTED: 422,
  ERR_CONTENT_TOO_LARGE: 413,
}

/** An error as the answer tells it. */
interface ShownError {
  readonly code: ErrorCode | 'ERR_INTERNAL'
  readonly message: string
  /** Place in the list that was sent. */
  readonly index?: number
}

/** An answer that is no 200. */
class Refusal extends Error {
  readonly status: number
  readonly error: ChannelkitError
  readonly headers: Readonly<Record<string, string>>

  constructor(
    error: ChannelkitError,
    status: number = errorTable[error.code].httpStatus,
    headers: Readonly<Record<string, string>> = {},
  ) {
    super(error.message)
    this.error = error
    this.status = status
    this.headers = headers
  }
}

/**
 * Takes messages by HTTP from programs that have a token, and sends them. No code of the site runs
 * here but the schemas of its channels. Nothing is answered to who has no token but that.
 */
export class PublishServer {
  readonly #hub: Hub
  readonly #settings: ResolvedPublishSettings
  readonly #declaration: (channel: string) => ChannelDeclaration | undefined
  readonly #requestMs: number
  readonly #grants: readonly { readonly hash: Buffer; readonly grant: PublishGrant }[]
  readonly #underWay = new Set<Promise<void>>()
  #isClosing = false

  constructor(options: {
    readonly hub: Hub
    readonly settings: ResolvedPublishSettings
    readonly declaration: (channel: string) => ChannelDeclaration | undefined
    /** How long a body may take, in milliseconds. */
    readonly requestMs: number
  }) {
    this.#hub = options.hub
    this.#settings = options.settings
    this.#declaration = options.declaration
    this.#requestMs = options.requestMs
    this.#grants = options.settings.tokens.map((grant) => ({ hash: hashOf(grant.token), grant }))
  }

  /**
   * Takes over a request for the endpoint.
   *
   * @param mustContinue - whether the client waits for leave to send its body.
   * @returns false when it is for another path.
   */
  serve(request: IncomingMessage, response: ServerResponse, mustContinue = false): boolean {
    const { url = '' } = request
    const { path } = this.#settings
    if (url !== path && !url.startsWith(`${path}?`)) return false
    const work = this.#answer(request, response, mustContinue).finally(() => {
      this.#underWay.delete(work)
    })
    this.#underWay.add(work)
    return true
  }

  /** Answers what is under way, and refuses what comes after. */
  async close(): Promise<void> {
    this.#isClosing = true
    await Promise.all(this.#underWay)
  }

  async #answer(
    request: IncomingMessage,
    response: ServerResponse,
    mustContinue: boolean,
  ): Promise<void> {
    const refusal = unsupported(request)
    if (refusal) {
      this.#hub.counters.add('requests.unsupported')
      answer(response, refusal.status, refusal.text, refusal.headers)
      readOff(request, this.#clock)
      return
    }
    let isReading = !mustContinue
    try {
      const grant = this.#authenticate(request)
      const body = this.#body(request)
      if (mustContinue) response.writeContinue()
      isReading = true
      const parsed = parseBody(await this.#read(body))
      const isList = Array.isArray(parsed)
      const messages = isList ? parsed : [parsed]
      this.#checkCount(messages.length)
      const { limits } = this.#hub.backend
      const checked = await checkMessages(messages, grant, this.#declaration, limits)
      const failures = await sendAll(this.#hub.backend, checked)
      this.#hub.counters.add('publish.sent', messages.length - failures.length)
      this.#tell(response, messages.length, failures, isList)
    } catch (error) {
      this.#refuse(request, response, error, !isReading)
    }
  }

  get #clock() {
    return this.#hub.backend.limits.clock
  }

  /** Compares with every token, so that the time it takes tells nothing of any. */
  #authenticate({ headers }: IncomingMessage): PublishGrant {
    const given = /^Bearer +([^\s]+) *$/i.exec(headers.authorization ?? '')?.[1]
    const hash = hashOf(given ?? '')
    let found: PublishGrant | undefined
    for (const each of this.#grants) {
      if (timingSafeEqual(hash, each.hash)) found = each.grant
    }
    if (found && given !== undefined) return found
    const message = given === undefined ? 'there is no token' : 'the token is not known'
    throw new Refusal(
      new ChannelkitError('ERR_UNAUTHORIZED', `${message}; send Authorization: Bearer TOKEN`),
      401,
      { 'www-authenticate': 'Bearer realm="channelkit"' },
    )
  }

  #body(request: IncomingMessage): RequestBody {
    if (this.#isClosing) {
      const error = new ChannelkitError('ERR_BACKEND_CLOSED', 'this server is stopping; try again')
      throw new Refusal(error, 503, { connection: 'close' })
    }
    if (request.method !== 'POST') {
      const problem = `the method is ${request.method}; POST messages here`
      throw new Refusal(new ChannelkitError('ERR_BAD_REQUEST', problem), 405, { allow: 'POST' })
    }
    const type = request.headers['content-type'] ?? ''
    if (!/^application\/json *(?:;|$)/i.test(type)) {
      const problem = `the body is ${type || 'of no type'}; send application/json`
      throw new Refusal(new ChannelkitError('ERR_BAD_REQUEST', problem), 415)
    }
    const coding = request.headers['content-encoding'] ?? 'identity'
    if (coding.toLowerCase() !== 'identity') {
      const problem = `the body is in ${shown(coding)}; send it as it is`
      throw new Refusal(new ChannelkitError('ERR_BAD_REQUEST', problem), 415)
    }
    const { maxBodyBytes } = this.#settings
    return new RequestBody(request, {
      clock: this.#clock,
      maxBytes: maxBodyBytes,
      partBytes: maxBodyBytes,
    })
  }

  /** Reads the whole body, within a time. */
  async #read(body: RequestBody): Promise<Uint8Array | undefined> {
    let cancel: (() => void) | undefined
    const late = new Promise<never>((_resolve, reject) => {
      cancel = this.#clock.schedule(() => {
        const error = new ChannelkitError('ERR_BAD_REQUEST', 'the body came too slowly')
        reject(new Refusal(error, 408, { connection: 'close' }))
      }, this.#requestMs)
    })
    try {
      return (await Promise.race([body.next(), late])).bytes
    } finally {
      cancel?.()
    }
  }

  #checkCount(count: number): void {
    const { maxMessages } = this.#settings
    if (count > maxMessages) {
      throw new ChannelkitError(
        'ERR_REQUEST_TOO_LARGE',
        `the list has ${count} messages; send at most ${maxMessages} at once`,
      )
    }
    if (count === 0) {
      throw new ChannelkitError('ERR_INVALID_ARGUMENT', 'the list is empty; send messages')
    }
  }

  /** Tells what was sent, and which messages were not. */
  #tell(
    response: ServerResponse,
    count: number,
    failures: readonly Failure[],
    isList: boolean,
  ): void {
    const sent = count - failures.length
    const [first] = failures
    if (!first) {
      answerJson(response, 200, { sent })
      return
    }
    for (const { error } of failures) this.#count(error)
    const shownFailures = failures.map(({ index, error }) => ({ index, ...this.#shown(error) }))
    const status = statusOf(first.error)
    const body = {
      error: this.#shown(first.error),
      sent,
      ...(isList && { failures: shownFailures }),
    }
    answerJson(response, status, body, retrying(status))
  }

  /** @param mayNotSend - whether the client waits for leave to send its body, and gets none. */
  #refuse(
    request: IncomingMessage,
    response: ServerResponse,
    thrown: unknown,
    mayNotSend: boolean,
  ): void {
    if (response.destroyed || response.headersSent) return
    const error =
      thrown instanceof Refusal
        ? thrown.error
        : thrown instanceof PublishFault
          ? thrown.fault
          : thrown
    const status = thrown instanceof Refusal ? thrown.status : statusOf(error)
    this.#count(error)
    const index = thrown instanceof PublishFault ? { index: thrown.index } : {}
    answerJson(
      response,
      status,
      { error: { ...this.#shown(error), ...index }, sent: 0 },
      {
        ...retrying(status),
        ...(mayNotSend && { connection: 'close' }),
        ...(thrown instanceof Refusal && thrown.headers),
      },
    )
    readOff(request, this.#clock)
  }

  #count(error: unknown): void {
    if (isChannelkitError(error)) this.#hub.counters.add(`publish.${error.code}`)
    else this.#hub.counters.add('publish.failed')
  }

  /** An error that is not ours may tell what is nobody's business. */
  #shown(error: unknown): ShownError {
    if (isChannelkitError(error)) return { code: error.code, message: error.message }
    this.#hub.logger.error({ err: error }, 'a message could not be published')
    return { code: 'ERR_INTERNAL', message: 'the message could not be sent; see the log' }
  }
}

/** A message that was not sent, by its place in the list, and why. */
interface Failure {
  readonly index: number
  readonly error: unknown
}

/** Sends messages in their order: those to channels, and to groups, that stand together in one batch. */
async function sendAll(
  backend: ChannelBackend,
  messages: readonly PublishedMessage[],
): Promise<readonly Failure[]> {
  const failures: Failure[] = []
  for (let start = 0; start < messages.length; ) {
    const isGroup = messages[start]?.group !== undefined
    let end = start + 1
    while (end < messages.length && (messages[end]?.group !== undefined) === isGroup) end++
    const batch = messages.slice(start, end)
    try {
      const failed = await (isGroup
        ? backend.groupSend(batch.filter((each) => each.group !== undefined))
        : backend.send(batch.filter((each) => each.channel !== undefined)))
      for (const { index, error } of failed) failures.push({ index: start + index, error })
    } catch (error) {
      // What stands behind is not to overtake it.
      for (let index = start; index < messages.length; index++) failures.push({ index, error })
      return failures
    }
    start = end
  }
  return failures
}

function hashOf(token: string): Buffer {
  return createHash('sha256').update(token).digest()
}

function statusOf(error: unknown): number {
  if (!isChannelkitError(error)) return 500
  return statuses[error.code] ?? errorTable[error.code].httpStatus
}

function retrying(status: number): Readonly<Record<string, string>> {
  return status === 503 ? { 'retry-after': '1' } : {}
}

function answerJson(
  response: ServerResponse,
  status: number,
  body: object,
  headers: Readonly<Record<string, string>> = {},
): void {
  answer(response, status, `${JSON.stringify(body)}\n`, {
    'content-type': 'application/json',
    'cache-control': 'no-store',
    ...headers,
  })
}
