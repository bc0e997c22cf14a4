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
