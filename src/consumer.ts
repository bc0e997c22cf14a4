import type { Message } from './message.ts'

/**
 * Runs on one message. What it throws, or rejects with, is logged and counted; throwing a
 * `Requeue` puts the message back.
 */
export type Consumer<M = Message> = (message: M) => void | Promise<void>

/**
 * A function from consumer to consumer that adds `Added` to the message: the inner consumer sees
 * it, the outer does not need it.
 */
export type ConsumerWrapper<Added> = <M extends Message>(
  consumer: Consumer<M & Added>,
) => Consumer<M>

/**
 * `M`, or any message where the compiler has not inferred `M` yet, as inside of another wrapper:
 * with `consumer: Consumer<Given<M> & Added>` consumers written inline know what all wrappers add.
 */
export type Given<M> = [M] extends [never] ? Message : M

const names = new WeakMap<Consumer<never>, string>()

/** Gives a consumer the name that logs and errors call it by. */
export function nameConsumer<C extends Consumer<never>>(consumer: C, name: string): C {
  names.set(consumer, name)
  return consumer
}

/** The name logs and errors call a consumer by: where it was loaded from, or its function's name. */
export function consumerName(consumer: Consumer<never>): string {
  return names.get(consumer) ?? (consumer.name || 'anonymous consumer')
}

/** On a function that {@link markLinearized} marked. A registered symbol, so across copies. */
const linearized = Symbol.for('channelkit.linearized')

/** Has workers run the consumer's messages by lines. */
export function markLinearized<C extends Consumer<never>>(consumer: C): C {
  Object.defineProperty(consumer, linearized, { value: true })
  return consumer
}

/** Whether the consumer, or one that it wraps, is linearized. */
export function isLinearized(consumer: Consumer<never>): boolean {
  return linearized in consumer
}

/**
 * Gives `outer`, which calls `inner`, what workers know `inner` by: its name, and that it is
 * linearized. Every wrapper returns its consumer through this.
 *
 * @example
 * ```ts
 * export function timed<M extends Message>(consumer: Consumer<M>): Consumer<M> {
 *   return wrapConsumer(async (message: M) => {
 *     const startedAt = performance.now()
 *     await consumer(message)
 *     console.log(message.channel, performance.now() - startedAt)
 *   }, consumer)
 * }
 * ```
 */
export function wrapConsumer<C extends Consumer<never>>(outer: C, inner: Consumer<never>): C {
  if (isLinearized(inner)) markLinearized(outer)
  return nameConsumer(outer, consumerName(inner))
}
