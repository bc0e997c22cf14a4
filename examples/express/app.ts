import { Channel, channelView, Group } from 'channelkit'
import express from 'express'
import session from 'express-session'
import multer from 'multer'

// An Express site as it would be without Channelkit, but for its last three routes.
export const app = express()
app.use(session({ secret: 'change me', resave: false, saveUninitialized: false }))
app.use(express.urlencoded({ extended: false }))

declare module 'express-session' {
  interface SessionData {
    views?: number
  }
}

app.get('/', (request, response) => {
  request.session.views = (request.session.views ?? 0) + 1
  response.send(`<!doctype html><title>Express</title>
<p>You have been here ${request.session.views} times.</p>
<form action="/upload" method="post" enctype="multipart/form-data">
<input type="file" name="file"><button>Upload</button></form>
<p><a href="/clock">A stream</a> <a href="/report">A slow report</a></p>
<ul id="news"></ul>
<script>
new WebSocket(location.href.replace('http', 'ws') + 'news').onmessage = ({ data }) => {
  news.append(Object.assign(document.createElement('li'), { textContent: data }))
}
</script>`)
})

app.get('/clock', (_request, response) => {
  response.type('text/event-stream')
  const timer = setInterval(() => response.write(`data: ${new Date().toISOString()}\n\n`), 1_000)
  response.on('close', () => clearInterval(timer))
})

// Tells every open page; any code of the site may do so.
app.post('/upload', multer().single('file'), async (request, response) => {
  await Group('news').send({ content: `${request.file?.originalname} has come` })
  response.redirect(303, '/')
})

// Hands work on and is done.
app.post('/remind', async (request, response) => {
  await Channel('reminders').send({ text: String(request.body.text) })
  response.status(202).end()
})

// Hands its request on: the consumer of `reports` answers it.
app.get('/report', channelView('reports'))
