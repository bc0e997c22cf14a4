export {
  type BackendChoice,
  Channel,
  type DelayedSendOptions,
  type SendOptions,
} from './channel.ts'
export {
  type ChannelDeclaration,
  type ChannelDeclarations,
  type ContentOf,
  content,
  defineChannels,
  type Register,
  type ReplyOf,
} from './channel-types.ts'
export { type ChannelBackendConfig, type Config, defineConfig } from './config.ts'
export { type Consumer, type ConsumerWrapper, wrapConsumer } from './consumer.ts'
export type { Content, ContentValue } from './content.ts'
export {
  type DeadLetter,
  type DeadLetterOptions,
  deadLetters,
  replayDeadLetters,
} from './dead-letters.ts'
export type { ChannelDelivery } from './delivery.ts'
export {
  ChannelkitError,
  type ErrorCategory,
  type ErrorCode,
  isChannelkitError,
} from './errors.ts'
export { Group } from './group.ts'
export {
  decodeRequest,
  decodeResponse,
  encodeRequest,
  encodeResponse,
  sendResponse,
} from './http/request-response.ts'
export type { Logger } from './logger.ts'
export type { Message, MessageOf } from './message.ts'
export type {
  Address,
  BuiltInChannels,
  Echo,
  HeaderList,
  HttpDisconnect,
  HttpListen,
  HttpNotice,
  HttpRequest,
  HttpResponse,
  HttpResponsePart,
  ValueLists,
  WebSocketConnect,
  WebSocketDisconnect,
  WebSocketKeepalive,
  WebSocketReceive,
  WebSocketReply,
} from './message-formats.ts'
export { Requeue } from './requeue.ts'
export type { PathParams, RouteFilter } from './route-filter.ts'
export {
  type ConsumerReference,
  defineRouting,
  type FilteredRoute,
  include,
  type LoadedRouting,
  type Route,
  type RoutedMessage,
  type Routing,
  route,
} from './routing.ts'
export type { User } from './sessions/auth.ts'
export type {
  ChannelSession,
  Session,
  SessionData,
  SessionValue,
  SessionWithUser,
} from './sessions/session.ts'
export { issueTicket, type TicketOptions, type TicketSource } from './sessions/ticket.ts'
export { Site, type SiteOptions, setup } from './site.ts'
export {
  afterCommit,
  inTransaction,
  joinTransaction,
  type OpenTransaction,
  type TransactionOptions,
} from './site-transactions/in-transaction.ts'
export type {
  PlainConnection,
  QueryConnection,
  SqliteHandle,
} from './site-transactions/plain-transaction.ts'
export { type ChannelView, channelView } from './view-layer/channel-view.ts'
export type { FetchApp } from './view-layer/fetch-app.ts'
export type { NodeApp, NodeHandler, ViewApp } from './view-layer/view-app.ts'
export { type AnyRequest, defer, messageOf } from './view-layer/view-request.ts'
export { echoChannel, Worker, type WorkerOptions, type WorkerSettings } from './worker.ts'
export { channelSession, type WithChannelSession } from './wrappers/channel-session.ts'
export { holdSends } from './wrappers/hold-sends.ts'
export { httpSession, type WithHttpSession } from './wrappers/http-session.ts'
export { linearize } from './wrappers/linearize.ts'
export { logOut, type SignedInRequest } from './wrappers/log-out.ts'
export { type SessionKeys, sessionKeys } from './wrappers/session-keys.ts'
export {
  channelSessionUser,
  httpSessionUser,
  transferUser,
  type WithChannelSessionUser,
  type WithHttpSessionUser,
  type WithUser,
} from './wrappers/session-user.ts'
export { type DisconnectOptions, disconnectUser } from './wrappers/user-group.ts'
