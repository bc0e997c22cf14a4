import type { IncomingMessage } from 'node:http'

/** The parts of a request that pure functions read, as Node's parser leaves them. */
export function incomingRequest(options: {
  readonly url?: string
  readonly rawHeaders?: readonly (readonly [name: string, value: string])[]
  readonly remoteAddress?: string
  readonly localAddress?: string
  readonly isEncrypted?: boolean
}): IncomingMessage {
  const { url = '/', rawHeaders = [], remoteAddress = '203.0.113.9' } = options
  const headers: Record<string, string> = {}
  for (const [name, value] of rawHeaders) {
    const key = name.toLowerCase()
    const separator = key === 'cookie' ? '; ' : ', '
    headers[key] = key in headers ? `${headers[key]}${separator}${value}` : value
  }
  const socket = {
    remoteAddress,
    remotePort: 4_711,
    localAddress: options.localAddress ?? '192.0.2.80',
    localPort: 80,
    ...(options.isEncrypted && { encrypted: true }),
  }
  return { url, headers, rawHeaders: rawHeaders.flat(), socket } as unknown as IncomingMessage
}
