export type { CapacityRules } from './capacity.ts'
export type {
  AdvancedLines,
  AdvanceOptions,
  BackendLimits,
  BackendOptions,
  BackendSupport,
  BatchMark,
  ChannelBackend,
  ChannelInfo,
  Delivery,
  DirectDelivery,
  GroupDelivery,
  Inbox,
  InboxOptions,
  IncomingMessage,
  LineOptions,
  LineTurn,
  Membership,
  OutgoingMessage,
  ProcessInfo,
  ReceiveOptions,
  RunStatement,
  SendFailure,
  SendOptions,
  SiteSend,
  TransactionalSends,
} from './channel-backend.ts'
export { decodeContent, type Encoded, encodeContent } from './codec.ts'
export { resolveLimits } from './limits.ts'
export { type InboxEntry, type InboxTransport, ReplyInbox } from './reply-inbox.ts'
