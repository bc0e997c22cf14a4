import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'

/** Listens on a free loopback port and answers the measuring process over the IPC channel. */
export function serve(server: Server): void {
  server.listen(0, '127.0.0.1', 4_096, () => {
    process.send?.({ port: (server.address() as AddressInfo).port })
  })
  answerMeasurements()
}

/** Answers the measuring process, and ends with it. */
export function answerMeasurements(): void {
  process.on('message', (request: string) => {
    if (request === 'gc') global.gc?.()
    const { user, system } = process.cpuUsage()
    process.send?.({ cpuMicros: user + system, rssBytes: process.memoryUsage().rss })
  })
  process.on('disconnect', () => process.exit(0))
}
