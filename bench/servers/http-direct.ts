// An app served the way its own documentation says: node --import tsx http-direct.ts <app>
import { createServer } from 'node:http'
import { getRequestListener } from '@hono/node-server'
import { expressApp, fastifyApp, helloHandler, honoApp } from './http-apps.ts'
import { serve } from './serve.ts'

const [name] = process.argv.slice(2)
switch (name) {
  case 'hono':
    serve(createServer(getRequestListener(honoApp().fetch, { overrideGlobalObjects: false })))
    break
  case 'express':
    serve(createServer(expressApp()))
    break
  case 'fastify': {
    const app = fastifyApp()
    await app.ready()
    serve(app.server)
    break
  }
  default:
    serve(createServer(helloHandler))
}
