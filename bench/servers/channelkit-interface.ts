import { createServer } from 'node:http'
import { setup } from 'channelkit'
import { attach } from 'channelkit/server'
import { config } from './channelkit-site.ts'
import { serve } from './serve.ts'

const server = createServer()
await attach(server, await setup(config))
serve(server)
