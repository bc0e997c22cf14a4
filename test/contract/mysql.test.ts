import { describeChannelBackend } from 'channelkit/testing'
import { afterAll } from 'vitest'
import { createMysqlStore } from '../support/mysql-store.ts'
import { startMariadb } from '../support/service-process.ts'

const server = await startMariadb()
afterAll(() => server[Symbol.asyncDispose]())

describeChannelBackend('MysqlBackend', () => createMysqlStore(server))
