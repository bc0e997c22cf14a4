import { type IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

const assignSocket = ServerResponse.prototype.assignSocket

/**
 * Holds a request back whose client has sent too many at once, without waiting for answers: those
 * behind the first `maxUnderWay` run in order, as those before them are answered. Meanwhile nothing
 * more is read from the connection.
 *
 * @param run - called when its turn comes, unless its client has left; not before this returns.
 * @returns whether it is held; else it is to be run by the caller.
 */
export function holdBack(
  request: IncomingMessage,
  response: ServerResponse,
  maxUnderWay: number,
  run: () => void,
): boolean {
  const socket = request.socket as PipelinedSocket
  socket[pipelineKey] ??= new Pipeline(socket)
  return socket[pipelineKey].isHeld(response, maxUnderWay, run)
}

const pipelineKey = Symbol('channelkit.pipeline')

type PipelinedSocket = Socket & { [pipelineKey]?: Pipeline }

/** The requests of one connection behind the one whose answer is being written. */
class Pipeline {
  readonly #socket: Socket
  #queued = 0
  readonly #held: (() => void)[] = []

  constructor(socket: Socket) {
    this.#socket = socket
  }

  isHeld(response: ServerResponse, maxUnderWay: number, run: () => void): boolean {
    this.#queued++
    // Node answers in order: it gives each response the socket when those before it are written.
    response.assignSocket = (socket) => {
      response.assignSocket = assignSocket
      response.assignSocket(socket)
      this.#advance()
    }
    if (this.#queued < maxUnderWay) return false
    this.#held.push(run)
    if (this.#held.length === 1) {
      this.#socket.pause()
      // Node reads on after each request.
      this.#socket.on('resume', pause)
    }
    return true
  }

  #advance(): void {
    this.#queued--
    const next = this.#held.shift()
    if (!next) return
    if (this.#held.length === 0) {
      this.#socket.off('resume', pause)
      this.#socket.resume()
    }
    process.nextTick(() => {
      if (!this.#socket.destroyed) next()
    })
  }
}

function pause(this: Socket): void {
  this.pause()
}
