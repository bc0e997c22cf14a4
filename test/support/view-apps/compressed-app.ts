import { fileURLToPath } from 'node:url'
import compression from 'compression'
import express from 'express'

const files = fileURLToPath(new URL('./files/', import.meta.url))
const words = 'compressed and compressed again. '

/** An Express site whose answers are compressed. */
export function createCompressedApp() {
  const app = express()
  app.use(compression())
  app.use('/static', express.static(files))
  app.get('/small', (_request, response) => response.send('small'))
  app.get('/large', (_request, response) => response.send(words.repeat(10_000)))
  app.get('/json', (_request, response) => response.json(Array(2_000).fill({ words })))
  app.get('/written', (_request, response) => {
    response.set('Content-Length', String(words.length * 200)).type('text/plain')
    for (let part = 0; part < 200; part++) response.write(words)
    response.end()
  })
  app.get('/left-alone', (_request, response) => {
    response.set('Cache-Control', 'no-transform').send(words.repeat(1_000))
  })
  app.get('/bytes', (_request, response) => response.type('image/png').send(Buffer.alloc(5_000, 7)))
  app.get('/no-content', (_request, response) => response.status(204).end())
  app.get('/throws', () => {
    throw Object.assign(new Error('broken'), {
      status: 503,
      expose: true,
      stack: words.repeat(100),
    })
  })
  app.get('/events', (request, response) => {
    response.type('text/event-stream').set('Cache-Control', 'no-cache')
    let sent = 0
    const timer = setInterval(() => {
      response.write(`data: ${++sent}\n\n`)
      response.flush()
    }, 20)
    request.on('close', () => clearInterval(timer))
  })
  return app
}
