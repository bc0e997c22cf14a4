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

/** Sends as many zeros as the query says, as fast as the client reads; counts what it is sent. */
export function streamHandler(request: IncomingMessage, response: ServerResponse): void {
  if (request.method === 'POST') {
    let size = 0
    request.on('data', (chunk: Buffer) => {
      size += chunk.length
    })
    request.on('end', () => response.end(String(size)))
    return
  }
  let left = Number(request.url?.split('?')[1])
  const chunk = Buffer.alloc(65_536)
  const write = (): void => {
    while (left > 0) {
      left -= chunk.length
      if (!response.write(chunk)) {
        response.once('drain', write)
        return
      }
    }
    response.end()
  }
  write()
}

export function appOf(name: string | undefined) {
  switch (name) {
    case 'hono':
      return honoApp()
    case 'express':
      return expressApp()
    case 'fastify':
      return fastifyApp()
    case 'stream':
      return streamHandler
    default:
      return helloHandler
  }
}
