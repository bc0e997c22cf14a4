const firstWaitMs = 500
const longestWaitMs = 15_000

/**
 * A WebSocket that comes back by itself when it is lost.
 *
 * Each wait is longer than the one before, and of another length on every page, so that a server
 * that starts again is not met by all of its clients at once.
 */
export class Connection {
  #url
  #onOpen
  #onFrame
  #onState
  #socket
  #failures = 0
  #retry
  #isConnecting = false
  #isRefused = false

  /**
   * @param options.url - async function that tells where to connect, asked each time.
   * @param options.onOpen - called when a socket is open.
   * @param options.onFrame - called with each message, parsed.
   * @param options.onState - called with `connecting`, `connected`, `waiting` or, when the site
   *   itself has closed the socket, `refused` and its code.
   */
  constructor({ url, onOpen, onFrame, onState }) {
    this.#url = url
    this.#onOpen = onOpen
    this.#onFrame = onFrame
    this.#onState = onState
    void this.#connect()
    addEventListener('online', () => this.#connectNow())
    document.addEventListener('visibilitychange', () => {
      if (document.visibilityState === 'visible') this.#connectNow()
    })
  }

  /** Sends a frame if the socket is open. */
  send(frame) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(frame))
  }

  async #connect() {
    clearTimeout(this.#retry)
    if (this.#isConnecting) return
    this.#isConnecting = true
    this.#onState('connecting')
    try {
      this.#open(await this.#url())
    } catch {
      this.#connectLater()
    } finally {
      this.#isConnecting = false
    }
  }

  #open(url) {
    this.#socket = new WebSocket(url)
    this.#socket.addEventListener('open', () => {
      this.#onState('connected')
      this.#onOpen()
    })
    this.#socket.addEventListener('message', ({ data }) => {
      this.#failures = 0
      this.#onFrame(JSON.parse(data))
    })
    this.#socket.addEventListener('close', ({ code }) => {
      // These codes are the site's answer, and no accident: trying again would not change it.
      if (code < 4000) return this.#connectLater()
      this.#isRefused = true
      this.#onState('refused', code)
    })
  }

  #connectLater() {
    const fullMs = Math.min(longestWaitMs, firstWaitMs * 2 ** this.#failures)
    this.#failures++
    this.#onState('waiting')
    this.#retry = setTimeout(() => this.#connect(), fullMs * (0.5 + Math.random() / 2))
  }

  #connectNow() {
    if (this.#isRefused) return
    if (!this.#socket || this.#socket.readyState === WebSocket.CLOSED) void this.#connect()
  }
}
