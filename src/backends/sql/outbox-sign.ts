/**
 * Stands in signs and among the channels of a look for the outbox: that it has rows which nobody
 * may be about to move. No channel has such a name.
 */
export const outboxSign = '~outbox'
