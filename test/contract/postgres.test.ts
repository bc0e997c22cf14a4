import { describeChannelBackend } from 'channelkit/testing'
import { afterAll } from 'vitest'
import { createPostgresStore } from '../support/postgres-store.ts'
import { startPostgres } from '../support/service-process.ts'

const server = await startPostgres()
afterAll(() => server[Symbol.asyncDispose]())

describeChannelBackend('PostgresBackend', () => createPostgresStore(server))
