import { ChannelkitError } from '../../errors.ts'
import { clientOptions, loadRedis, type RedisAddress } from './redis-client.ts'
import type { RedisNode } from './redis-url.ts'

// A sentinel that does not answer so soon is passed over.
const patienceMs = 1_000

/**
 * Asks sentinels, one after the other, where a master is now.
 *
 * @throws {ChannelkitError} `ERR_INVALID_CONFIG` when none of those that answer watches it.
 */
export async function askSentinels(
  sentinels: readonly RedisNode[],
  masterName: string,
  addressOf: (node: RedisNode) => RedisAddress,
): Promise<RedisNode> {
  const { createClient } = await loadRedis()
  let lastError: unknown
  let unknownTo = 0
  for (const node of sentinels) {
    const client = createClient(clientOptions(addressOf(node), patienceMs))
    let cancel = (): void => {}
    try {
      client.on('error', () => {})
      const late = new Promise<never>((_resolve, reject) => {
        const timer = setTimeout(
          () => reject(new Error(`sentinel ${node.host}:${node.port} does not answer`)),
          patienceMs,
        )
        cancel = () => clearTimeout(timer)
      })
      const asking = (async () => {
        await client.connect()
        return client.sendCommand(['SENTINEL', 'get-master-addr-by-name', masterName])
      })()
      asking.catch(() => {})
      const reply = (await Promise.race([asking, late])) as [string, string] | null
      if (reply) return { host: reply[0], port: Number(reply[1]) }
      unknownTo++
    } catch (error) {
      lastError = error
    } finally {
      cancel()
      try {
        client.destroy()
      } catch {
        // It never connected.
      }
    }
  }
  if (unknownTo > 0) {
    throw new ChannelkitError(
      'ERR_INVALID_CONFIG',
      `no sentinel watches a master called ${JSON.stringify(masterName)}; correct the name in the URL`,
    )
  }
  throw lastError
}
