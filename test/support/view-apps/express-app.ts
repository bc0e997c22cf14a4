import { createHash } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import bodyParser from 'body-parser'
import express, { type NextFunction, type Request, type Response } from 'express'
import session from 'express-session'
import multer from 'multer'
import passport from 'passport'
import { Strategy } from 'passport-local'

const files = fileURLToPath(new URL('./files/', import.meta.url))

declare module 'express-session' {
  interface SessionData {
    views?: number
  }
}

/** An Express site of the ordinary kind, which knows nothing of Channelkit. */
export function createExpressApp() {
  const auth = new passport.Passport()
  auth.use(
    new Strategy((username, password, done) => {
      done(null, password === 'secret' ? { username } : false)
    }),
  )
  auth.serializeUser((user, done) => done(null, (user as { username: string }).username))
  auth.deserializeUser((username, done) => done(null, { username } as Express.User))

  const app = express()
  app.set('trust proxy', true)
  app.use('/static', express.static(files))
  app.use(session({ secret: 'not so secret', resave: false, saveUninitialized: false }))
  app.use(auth.initialize())
  app.use(auth.session())
  app.use(bodyParser.json())
  app.use(bodyParser.urlencoded({ extended: true }))
  app.use(bodyParser.text({ type: 'text/plain', limit: '4mb' }))

  app.get('/', (_request, response) => response.send('Hello world!'))
  app.get('/json', (request, response) =>
    response.json({ query: request.query, host: request.hostname }),
  )
  app.post('/json', (request, response) => response.status(201).json(request.body))
  app.post('/form', (request, response) => response.json(request.body))
  app.post('/text', (request, response) => {
    response.json({ length: request.body.length, hash: hashOf(request.body) })
  })
  app.put('/raw', (request, response) => {
    const hash = createHash('sha256')
    let length = 0
    request.on('data', (chunk: Buffer) => {
      length += chunk.length
      hash.update(chunk)
    })
    request.on('end', () => response.json({ length, hash: hash.digest('hex') }))
  })
  app.post('/upload', multer().single('file'), (request, response) => {
    response.json({
      name: request.file?.originalname,
      size: request.file?.size,
      hash: hashOf(request.file?.buffer ?? ''),
      fields: { ...request.body },
    })
  })
  app.get('/count', (request, response) => {
    request.session.views = (request.session.views ?? 0) + 1
    response.json({ views: request.session.views })
  })
  app.post(
    '/login',
    auth.authenticate('local', { successRedirect: '/me', failureRedirect: '/login' }),
  )
  app.get('/login', (_request, response) => response.status(401).send('log in'))
  app.get('/me', (request, response) => {
    response.json({ user: request.user ?? null, isIn: request.isAuthenticated() })
  })
  app.post('/logout', (request, response, next) => {
    request.logout((error) => (error ? next(error) : response.redirect(303, '/')))
  })
  app.get('/redirect', (_request, response) => response.redirect('/json?x=1'))
  app.get('/file', (_request, response) => response.sendFile('hello.txt', { root: files }))
  app.get('/download', (_request, response) => response.download(`${files}hello.txt`, 'héllo.txt'))
  app.get('/cookies', (_request, response) => {
    response.cookie('a', '1').cookie('b', '2', { httpOnly: true }).send('set')
  })
  app.get('/vary', (_request, response) => {
    response.append('Vary', 'Accept').append('X-Mark', 'one').append('X-Mark', 'two').send('ok')
  })
  app.get('/stream', async (_request, response) => {
    response.type('text/plain')
    for (const part of ['one ', 'two ', 'three']) {
      response.write(part)
      await new Promise((resolve) => setImmediate(resolve))
    }
    response.end()
  })
  app.get('/big', (_request, response) => response.send('x'.repeat(3_000_000)))
  app.get('/big-stream', (_request, response) => {
    for (let part = 0; part < 40; part++) response.write(Buffer.alloc(50_000, part))
    response.end()
  })
  app.get('/raw-head', (_request, response) => {
    response.writeHead(207, { 'X-Raw': 'yes', 'Set-Cookie': ['a=1', 'b=2'], 'Content-Length': 3 })
    response.end('raw')
  })
  app.get('/raw-list', (_request, response) => {
    response.writeHead(200, 'Fine', ['X-Raw', 'one', 'X-Raw', 'two'])
    response.write('ra')
    response.end('w')
  })
  app.get('/no-content', (_request, response) => response.status(204).end())
  app.get('/not-modified', (_request, response) => {
    response.status(304).set('ETag', '"x"').end('left out')
  })
  app.get('/whoami', (request, response) => {
    response.json({ ip: request.ip, protocol: request.protocol, secure: request.secure })
  })
  app.get('/params/:id/*rest', (request, response) => response.json(request.params))
  app.get('/throws', () => {
    throw new Error('broken')
  })
  app.get('/rejects', async () => {
    throw Object.assign(new Error('teapot'), { status: 418 })
  })
  app.get('/next', (_request, _response, next) =>
    next(Object.assign(new Error('no'), { status: 403 })),
  )
  app.use(
    (
      error: Error & { status?: number },
      _request: Request,
      response: Response,
      _next: NextFunction,
    ) => {
      response.status(error.status ?? 500).send(`failed: ${error.message}`)
    },
  )
  return app
}

export function hashOf(value: string | Uint8Array): string {
  return createHash('sha256').update(value).digest('hex')
}
