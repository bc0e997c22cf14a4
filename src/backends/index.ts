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
  HeldMessage,
  HoldOptions,
  Inbox,
  InboxOptions,
  IncomingMessage,
  LineOptions,
  LineTurn,
  Membership,
  MessageHold,
  OutgoingMessage,
  ProcessInfo,
  ReceiveOptions,
  RunStatement,
  SendFailure,
  SendOptions,
  Settlement,
  SettleOutcome,
  SiteSend,
  TransactionalSends,
} from './channel-backend.ts'
export { decodeContent, type Encoded, encodeContent } from './codec.ts'
export { type LaterMessage, laterOf } from './later.ts'
export { resolveLimits } from './limits.ts'
export { type InboxEntry, type InboxTransport, ReplyInbox } from './reply-inbox.ts'
