export { channelBackendClauses } from './channel-backend-clauses.ts'
export { describeChannelBackend } from './channel-backend-suite.ts'
export {
  type Clause,
  type ClauseContext,
  type RunClauseOptions,
  runClause,
  type TestStore,
} from './clause.ts'
export { FakeClock } from './fake-clock.ts'
export {
  type ConnectOptions,
  type LogRecord,
  TestSite,
  type TestSiteConfig,
  type TestSiteOptions,
} from './test-site.ts'
export type { TestSocket, TestSocketEnd } from './test-socket.ts'
