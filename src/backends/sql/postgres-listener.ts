import { randomUUID } from 'node:crypto'
import {
  loadPostgresDriver,
  type PostgresConnection,
  type PostgresNotification,
} from './postgres-driver.ts'

// A connection can be dead for hours before the system says so, so the listener calls itself.
const beatMs = 5_000
const firstDelayMs = 50
const longestDelayMs = 2_000

export interface PostgresListenerOptions {
  /** What it listens to: letters, digits and `_`. */
  readonly name: string
  /** Signs that begin with this are this process's own, which knows already. */
  readonly from: string
  /** How long the server may take to answer, in milliseconds. */
  readonly answerMs: number
  /** The config of a client of its own, or how to take one out of a pool. */
  readonly connect:
    | { readonly config: object }
    | { readonly pool: () => Promise<PostgresConnection> }
  readonly onSign: (channels: ReadonlySet<string>) => void
  readonly onState: (isListening: boolean) => void
}

/** A connection as the listener holds it. */
interface Held {
  readonly client: Pick<PostgresConnection, 'query' | 'on' | 'removeListener'> & {
    readonly ref?: () => void
    readonly unref?: () => void
  }
  /** Lets go of it, for good. */
  readonly end: () => void
}

/** Listens on one connection, makes a new one when it dies, and tells whether it listens. */
export class PostgresListener {
  readonly #options: PostgresListenerOptions
  #held: Held | undefined
  #isListening = false
  #isClosed = false
  #keepsAlive = false
  #timer: NodeJS.Timeout | undefined
  #delayMs = firstDelayMs
  #beat: string | undefined
  #starting: Promise<void> | undefined

  constructor(options: PostgresListenerOptions) {
    this.#options = options
  }

  get isListening(): boolean {
    return this.#isListening
  }

  start(): void {
    this.#starting = this.#start()
  }

  /** Whether the connection keeps the process from ending. */
  keepAlive(isKept: boolean): void {
    this.#keepsAlive = isKept
    const client = this.#held?.client
    if (isKept) client?.ref?.()
    else client?.unref?.()
  }

  async close(): Promise<void> {
    this.#isClosed = true
    clearTimeout(this.#timer)
    await this.#starting
    this.#letGo()
  }

  async #start(): Promise<void> {
    try {
      this.#held = await this.#connect()
      if (this.#isClosed) return this.#letGo()
      const { client } = this.#held
      client.on('error', this.#onLost)
      client.on('end', this.#onLost)
      client.on('notification', this.#onNotification)
      await client.query(`LISTEN ${this.#options.name}`)
      if (!this.#held || this.#isClosed) return this.#letGo()
      this.keepAlive(this.#keepsAlive)
      this.#delayMs = firstDelayMs
      this.#isListening = true
      this.#options.onState(true)
      this.#setTimer(() => this.#call(), beatMs)
    } catch {
      this.#onLost()
    }
  }

  async #connect(): Promise<Held> {
    const { connect, answerMs } = this.#options
    if ('pool' in connect) {
      const client = await connect.pool()
      return { client, end: () => client.release(true) }
    }
    const client = new (loadPostgresDriver().Client)({
      keepAlive: true,
      application_name: 'channelkit listener',
      connectionTimeoutMillis: answerMs,
      query_timeout: answerMs,
      ...connect.config,
    })
    // A failure to connect is told by `connect` too.
    client.on('error', () => {})
    await client.connect()
    return { client, end: () => void client.end().catch(() => {}) }
  }

  /** Sends itself a sign, which must come back. */
  #call(): void {
    this.#beat = randomUUID()
    const text = `NOTIFY ${this.#options.name}, 'beat ${this.#beat}'`
    this.#held?.client.query(text).catch(this.#onLost)
    this.#setTimer(this.#onLost, this.#options.answerMs)
  }

  readonly #onNotification = ({ payload = '' }: PostgresNotification): void => {
    if (payload.startsWith('beat ')) {
      if (payload !== `beat ${this.#beat}`) return
      this.#beat = undefined
      this.#setTimer(() => this.#call(), beatMs)
      return
    }
    const [from, ...channels] = payload.split('\n')
    if (from !== this.#options.from) this.#options.onSign(new Set(channels))
  }

  readonly #onLost = (): void => {
    this.#letGo()
    if (this.#isListening) {
      this.#isListening = false
      this.#options.onState(false)
    }
    if (this.#isClosed) return
    this.#setTimer(() => this.start(), this.#delayMs * (0.5 + Math.random()))
    this.#delayMs = Math.min(this.#delayMs * 2, longestDelayMs)
  }

  #letGo(): void {
    const held = this.#held
    this.#held = undefined
    if (!held) return
    for (const event of ['error', 'end']) held.client.removeListener(event, this.#onLost)
    held.client.removeListener('notification', this.#onNotification)
    held.client.on('error', () => {})
    held.end()
  }

  #setTimer(run: () => void, delayMs: number): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(run, delayMs)
    this.#timer.unref()
  }
}
