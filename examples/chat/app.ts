import { Hono } from 'hono'
import { html } from 'hono/html'
import { roomOf } from './rooms.ts'

export const app = new Hono()

app.use(async (context, next) => {
  await next()
  context.header(
    'content-security-policy',
    "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data:; frame-ancestors 'none'",
  )
  context.header('x-content-type-options', 'nosniff')
})

app.get('/favicon.ico', (context) => context.body(null, 404))

app.get('/:room?', (context) => {
  const room = roomOf(`/${context.req.param('room') ?? ''}`)
  return room === undefined ? context.notFound() : context.html(page(room))
})

// Shown for paths that lead to no room, like /a/b.
app.notFound((context) =>
  context.html(
    layout(
      'No such room',
      html`<main class="nothing"><h1>No such room</h1><p><a href="/">Go to the lobby</a></p></main>`,
    ),
    404,
  ),
)

function page(room: string) {
  return layout(
    `${room} · Chat`,
    html`
    <header>
      <div class="room">
        <h1>${room}</h1>
        <p id="people"></p>
      </div>
      <p id="state" role="status">Connecting…</p>
      <form id="go">
        <label class="hidden" for="room">Room</label>
        <input id="room" placeholder="Other room" maxlength="60" autocomplete="off" autocapitalize="none" enterkeyhint="go" required>
        <button>Go</button>
      </form>
    </header>

    <main id="log" tabindex="0" aria-label="Messages">
      <p id="empty" hidden>Nothing said here yet. Write the first message, or open this page in a second window.</p>
      <ol id="messages" role="log" aria-live="polite" aria-busy="true" aria-label="Messages"></ol>
      <ol id="outbox" aria-label="On their way"></ol>
    </main>

    <footer>
      <button id="newest" type="button" hidden>New messages</button>
      <form id="compose">
        <label class="hidden" for="text">Message</label>
        <textarea id="text" rows="1" maxlength="2000" placeholder="Message" enterkeyhint="send" required autofocus></textarea>
        <button>Send</button>
        <p class="as"><label for="nickname">Writing as</label> <input id="nickname" maxlength="40" autocomplete="nickname" required></p>
      </form>
    </footer>
    <template id="item">
      <li>
        <p class="head"><b></b> <time></time></p>
        <p class="text"></p>
      </li>
    </template>
    <noscript>This page needs JavaScript for its WebSocket.</noscript>
    <script type="module" src="/static/chat.js"></script>`,
  )
}

function layout(title: string, body: ReturnType<typeof html>) {
  return html`<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <title>${title}</title>
    <meta name="viewport" content="width=device-width, initial-scale=1, viewport-fit=cover, interactive-widget=resizes-content">
    <meta name="color-scheme" content="light dark">
    <meta name="websocket-port" content="${process.env.WEBSOCKET_PORT ?? ''}">
    <link rel="icon" href="data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Cpath fill='%232f6f5e' d='M2 2h12v9H8l-4 4v-4H2z'/%3E%3C/svg%3E">
    <link rel="stylesheet" href="/static/chat.css">
  </head>
  <body>
    ${body}
  </body>
</html>`
}
