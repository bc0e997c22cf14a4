import { disconnectUser, issueTicket } from 'channelkit'
import { type Context, Hono } from 'hono'
import { bodyLimit } from 'hono/body-limit'
import { csrf } from 'hono/csrf'
import { html } from 'hono/html'
import { type Account, checkPassword, makeAccount } from './accounts.ts'
import { letterPath, type Room, roomOf } from './rooms.ts'
import { endSession, sessionKey, startSession, userOf } from './sessions.ts'

/** What the form for logging in or signing up is shown with. */
interface Entry {
  readonly next: string
  readonly username?: string
  readonly fault?: string
}

const shortestPassword = 8
const longestPassword = 200

export const app = new Hono()

app.use(async (context, next) => {
  await next()
  context.header(
    'content-security-policy',
    "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
  )
  context.header('x-content-type-options', 'nosniff')
  context.header('cache-control', 'private, no-cache')
})

// Forms of other sites are refused by their Origin, and their requests have no cookie (SameSite).
app.use(csrf())
app.use(bodyLimit({ maxSize: 10_000 }))

app.get('/favicon.ico', (context) => context.body(null, 404))

app.get('/login', (context) => showEntry(context, 'login', { next: nextOf(context) }))
app.get('/sign-up', (context) => showEntry(context, 'sign-up', { next: nextOf(context) }))

app.post('/login', async (context) => {
  const { username, password } = await readForm(context)
  const next = nextOf(context)
  const user =
    password.length <= longestPassword ? await checkPassword(username, password) : undefined
  if (!user) {
    const fault = 'That name and password do not belong together. Please try again.'
    return showEntry(context, 'login', { next, username, fault })
  }
  await startSession(context, user)
  return context.redirect(next, 303)
})

app.post('/sign-up', async (context) => {
  const { username, password } = await readForm(context)
  const next = nextOf(context)
  const fault = faultOf(username, password)
  if (fault) return showEntry(context, 'sign-up', { next, username, fault })
  const user = await makeAccount(username, password)
  if (!user) {
    const taken = `The name ${username} is taken. Please choose another.`
    return showEntry(context, 'sign-up', { next, username, fault: taken })
  }
  await startSession(context, user)
  return context.redirect(next, 303)
})

app.post('/logout', async (context) => {
  const user = await userOf(context)
  await endSession(context)
  // On every server: tabs that stay open are told at once.
  if (user) await disconnectUser(user.id)
  return context.redirect(nextOf(context), 303)
})

// For a page whose socket is at another port: see `socketUrl` in public/chat.js.
app.post('/ticket', async (context) => {
  const key = sessionKey(context)
  if (key === undefined || !(await userOf(context))) return context.json({ ticket: null })
  const { origin } = new URL(context.req.url)
  return context.json({ ticket: await issueTicket(key, { origin }) })
})

app.get('/:room?', async (context) => {
  const { search } = new URL(context.req.url)
  const path = `/${context.req.param('room') ?? ''}`
  const user = await userOf(context)
  const room = roomOf(path, user)
  if (room) return context.html(page(room, user, path, search))
  return path === letterPath ? context.html(lettersPage(search), 403) : context.notFound()
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

async function readForm(context: Context): Promise<{ username: string; password: string }> {
  const { username, password } = await context.req.parseBody()
  const text = (value: unknown): string => (typeof value === 'string' ? value : '')
  return { username: text(username).trim(), password: text(password) }
}

function faultOf(username: string, password: string): string | undefined {
  // Letters of one alphabet, so that no two names look the same.
  if (!/^[a-z][a-z0-9_-]{1,19}$/i.test(username)) {
    return 'Please choose a name of 2 to 20 letters a–z, digits, - or _, with a letter first.'
  }
  if (password.length < shortestPassword) {
    return `That password is too short: it takes ${shortestPassword} characters or more.`
  }
  if (password.length > longestPassword) {
    return `That password is too long: ${longestPassword} characters are the most.`
  }
  return undefined
}

/** Where to go afterwards: a path of this site, whatever the address says. */
function nextOf(context: Context): string {
  const here = new URL(context.req.url)
  const next = context.req.query('next') ?? '/'
  if (!URL.canParse(next, here.href)) return '/'
  const { origin, pathname, search } = new URL(next, here)
  // `//` at the start of a path would lead to another host.
  return origin === here.origin ? pathname.replace(/^\/+/, '/') + search : '/'
}

function withNext(path: string, next: string): string {
  return `${path}?${new URLSearchParams({ next })}`
}

function showEntry(context: Context, kind: 'login' | 'sign-up', { next, username, fault }: Entry) {
  const isNew = kind === 'sign-up'
  const title = isNew ? 'Sign up' : 'Log in'
  const body = html`
    <main class="entry">
      <h1>${title}</h1>
      <form method="post" action="${withNext(`/${kind}`, next)}">
        ${fault ? html`<p id="fault" class="fault" role="alert">${fault}</p>` : ''}
        <label for="username">Name</label>
        <input id="username" name="username" value="${username ?? ''}" maxlength="20" autocomplete="username" autocapitalize="none" spellcheck="false" ${fault ? html`aria-describedby="fault"` : ''} required autofocus>
        <label for="password">Password</label>
        <input id="password" name="password" type="password" maxlength="${longestPassword}" autocomplete="${isNew ? 'new-password' : 'current-password'}" ${isNew ? html`aria-describedby="hint"` : ''} required>
        ${isNew ? html`<p id="hint" class="aside">${shortestPassword} characters or more.</p>` : ''}
        <button class="enter">${title}</button>
      </form>
      <p class="aside">${
        isNew
          ? html`You have a name already? <a href="${withNext('/login', next)}">Log in</a>`
          : html`New here? <a href="${withNext('/sign-up', next)}">Sign up</a>`
      } · <a href="${next.startsWith(letterPath) ? '/' : next}">Go on as a guest</a></p>
    </main>`
  return context.html(layout(`${title} · Chat`, body), fault ? 422 : 200)
}

function lettersPage(search: string) {
  const next = letterPath + search
  return layout(
    'Your letter · Chat',
    html`<main class="nothing">
      <h1>A room for your letter</h1>
      <p>Those whose names begin with the same letter meet here, among themselves.
      <a href="${withNext('/login', next)}">Log in</a> or <a href="${withNext('/sign-up', next)}">sign up</a>
      to join them, or go to <a href="/${search}">the lobby</a>.</p>
    </main>`,
  )
}

function page(room: Room, user: Account | null, path: string, search: string) {
  const here = encodeURI(path) + search
  return layout(
    `${room.name} · Chat`,
    html`
    <header>
      <div class="room">
        <h1>${room.name}</h1>
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
      </form>
      <p id="notice" role="alert" hidden></p>
      <div id="who" class="as">${
        user
          ? html`
        <p>Writing as <b id="user">${user.username}</b></p>
        <a href="${path === letterPath ? '/' : letterPath}${search}">${path === letterPath ? 'Lobby' : 'Your letter'}</a>
        <form method="post" action="${withNext('/logout', `/${search}`)}"><button class="link">Log out</button></form>`
          : html`
        <p><label for="nickname">Writing as</label> <input id="nickname" form="compose" maxlength="40" autocomplete="nickname" required></p>
        <a href="${withNext('/login', here)}">Log in</a>
        <a href="${withNext('/sign-up', here)}">Sign up</a>`
      }
      </div>
    </footer>
    <template id="item">
      <li>
        <p class="head"><b></b> <span class="who"></span> <time></time></p>
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
