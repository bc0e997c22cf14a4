import { createServer } from 'node:http'
import { setup } from 'channelkit'
import { config } from './channelkit-site.ts'
import { serve } from './serve.ts'

const site = await setup(config)
await (await site.worker()).start()
// A worker needs no port; this one keeps the process up and answers the measuring process.
serve(createServer())
