import { WebSocket } from 'ws'

/** Opens a socket to a site that says who it is, on opening and whenever it asks. */
export function openSocket(url: string, headers: Readonly<Record<string, string>>) {
  const socket = new WebSocket(url, { headers })
  const texts: string[] = []
  const waiting: ((text: string) => void)[] = []
  socket.on('message', (data) => {
    const next = waiting.shift()
    if (next) next(String(data))
    else texts.push(String(data))
  })
  const closed = new Promise<number>((resolve) => socket.once('close', resolve))
  return {
    closed,
    next(): Promise<string> {
      const text = texts.shift()
      if (text !== undefined) return Promise.resolve(text)
      return new Promise((resolve) => waiting.push(resolve))
    },
    ask(): Promise<string> {
      socket.send('who am I?')
      return this.next()
    },
    async close(): Promise<void> {
      socket.close()
      await closed
    },
  }
}
