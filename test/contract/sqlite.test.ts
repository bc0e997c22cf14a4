import { describeChannelBackend } from 'channelkit/testing'
import { createSqliteStore } from '../support/sqlite-store.ts'

describeChannelBackend('SqliteBackend', () => createSqliteStore())
