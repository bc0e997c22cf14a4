import type { IncomingMessage, ServerResponse } from 'node:http'
import express from 'express'
import fastify from 'fastify'
import { Hono } from 'hono'

export function helloHandler(_request: IncomingMessage, response: ServerResponse): void {
  response.setHeader('content-type', 'text/plain')
  response.end('Hello world!')
}

export function honoApp() {
  return new Hono().get('/', (c) => c.text('Hello world!'))
}

export function expressApp() {
  const app = express()
  app.get('/', (_request, response) => {
    response.send('Hello world!')
  })
  return app
}

export function fastifyApp() {
  const app = fastify()
  app.get('/', async () => 'Hello world!')
  return app
}

export function appOf(name: string | undefined) {
  switch (name) {
    case 'hono':
      return honoApp()
    case 'express':
      return expressApp()
    case 'fastify':
      return fastifyApp()
    default:
      return helloHandler
  }
}
