/**
 * The page of one room. The server sends `history`, `message`, `people` and `refused`; the page
 * sends `{ key, nickname, text }`, and the server goes by the user's name where there is one. What people wrote reaches the page through `textContent` alone.
 */
import { Connection } from './connection.js'

const element = (id) => document.getElementById(id)
const log = element('log')
const messages = element('messages')
const outbox = element('outbox')
const newest = element('newest')
const notice = element('notice')
/** Where a guest chooses a name; null for a user, who has one. */
const nickname = element('nickname')
const user = element('user')?.textContent
const text = element('text')

const mostShown = 500
const stateLabels = {
  connecting: 'Connecting…',
  connected: 'Connected',
  waiting: 'Connection lost, trying again…',
  refused: 'Disconnected',
}
const refusals = {
  4001: 'You have logged out, here or in another window. ',
  4401: 'This room is for users. ',
  4404: 'There is no such room. ',
}

/** The newest message shown. After a reconnect the server sends what came later. */
let lastId = 0
/** What was written here and has not come back yet, by key. */
const drafts = new Map()

if (nickname) {
  nickname.value =
    localStorage.getItem('nickname') || `Guest ${Math.floor(Math.random() * 900) + 100}`
  localStorage.setItem('nickname', nickname.value)
}

const connection = new Connection({
  url: socketUrl,
  onOpen() {
    // Those that did arrive before are known to the server by their key.
    for (const draft of drafts.values()) connection.send(draft)
  },
  onFrame(frame) {
    if (frame.type === 'history') change(() => frame.messages.forEach(show))
    if (frame.type === 'message') change(() => show(frame.message))
    if (frame.type === 'people') showPeople(frame.count)
    if (frame.type === 'refused') change(() => takeBack(frame))
    // Screen readers read out what is added from here on, not the history.
    if (frame.type === 'history') messages.setAttribute('aria-busy', 'false')
  },
  onState(state, code) {
    element('state').dataset.state = state
    element('state').textContent = stateLabels[state]
    if (state !== 'connected') element('people').textContent = ''
    if (state === 'refused') showRefusal(code)
  },
})

async function socketUrl() {
  const url = new URL(location.href)
  const meta = document.querySelector('meta[name="websocket-port"]')
  const port = url.searchParams.get('ws') ?? meta.content
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:'
  url.hash = ''
  url.search = lastId > 0 ? `?after=${lastId}` : ''
  // At the page's own origin the cookie says who we are: it is the safest, since no script can read
  // it. At another port browsers send it as well, but at another host, where sockets of a larger
  // site are, they do not. So there we show a ticket: it is good once, for half a minute and from
  // this origin, and does no harm in a log, as the session's key would.
  if (port && port !== location.port) {
    url.port = port
    const ticket = user && (await fetchTicket())
    if (ticket) url.searchParams.set('ticket', ticket)
  }
  return url
}

async function fetchTicket() {
  const response = await fetch('/ticket', { method: 'POST' })
  if (!response.ok) throw new Error(`no ticket: ${response.status}`)
  return (await response.json()).ticket
}

/** Gives back what the server did not take, to be written anew. */
function takeBack({ key, reason }) {
  const draft = drafts.get(key)
  if (!draft) return
  drafts.delete(key)
  outbox.querySelector(`[data-key="${key}"]`).remove()
  text.value = text.value ? `${draft.text}\n${text.value}` : draft.text
  fitText()
  notice.textContent = reason
  notice.hidden = false
  nickname?.select()
}

function showRefusal(code) {
  const link = document.createElement('a')
  // The same page anew, as whoever we are now.
  link.href = location.href
  link.textContent = 'Go on'
  notice.replaceChildren(refusals[code] ?? 'The site has closed the connection. ', link)
  notice.hidden = false
  element('who').hidden = true
  text.disabled = true
  element('compose').querySelector('button').disabled = true
}

/** Shows a message at its place: two workers may pass messages on in another order. */
function show(message) {
  if (drafts.delete(message.key)) outbox.querySelector(`[data-key="${message.key}"]`).remove()
  let before = messages.lastElementChild
  while (before && Number(before.dataset.id) > message.id) before = before.previousElementSibling
  if (before && Number(before.dataset.id) === message.id) return
  const item = makeItem(message)
  item.dataset.id = message.id
  if (before) before.after(item)
  else messages.prepend(item)
  joinToPrevious(item)
  if (item.nextElementSibling) joinToPrevious(item.nextElementSibling)
  if (messages.childElementCount > mostShown) messages.firstElementChild.remove()
  lastId = Math.max(lastId, message.id)
}

function makeItem({ key, author, isUser, text: said, sentAt }) {
  const item = element('item').content.firstElementChild.cloneNode(true)
  // A guest may be called like a user was: never the same person.
  item.dataset.author = `${isUser ? 'user' : 'guest'} ${author}`
  item.dataset.key = key
  item.classList.toggle('mine', isUser === (user !== undefined) && author === ownName())
  item.classList.toggle('verified', isUser)
  item.style.setProperty('--hue', hueOf(author))
  item.querySelector('b').textContent = author
  item.querySelector('.who').textContent = isUser ? 'verified' : 'guest'
  const time = item.querySelector('time')
  const date = new Date(sentAt)
  time.dateTime = date.toISOString()
  time.textContent = formatTime(date)
  item.querySelector('.text').textContent = said
  return item
}

function ownName() {
  return user ?? nickname.value.trim()
}

/** Hides the name above a message that follows another by the same person. */
function joinToPrevious(item) {
  const { author } = item.dataset
  item.classList.toggle('joined', item.previousElementSibling?.dataset.author === author)
}

function hueOf(author) {
  let hash = 0
  for (const character of author) hash = (hash * 31 + character.codePointAt(0)) % 100_003
  // Steps of the golden angle keep the hues of like names apart.
  return (hash * 137.508) % 360
}

function formatTime(date) {
  const isToday = date.toDateString() === new Date().toDateString()
  const day = isToday ? {} : { day: 'numeric', month: 'short' }
  return date.toLocaleString([], { ...day, hour: '2-digit', minute: '2-digit' })
}

function showPeople(count) {
  element('people').textContent = count === 1 ? 'Only you are here' : `${count} people here`
}

/** Changes what is shown; a reader at the end of it stays there. */
function change(update) {
  const wasAtEnd = isAtEnd()
  update()
  element('empty').hidden = messages.childElementCount + outbox.childElementCount > 0
  if (wasAtEnd) scrollToEnd()
  else newest.hidden = false
}

function isAtEnd() {
  return log.scrollHeight - log.scrollTop - log.clientHeight < 60
}

function scrollToEnd() {
  log.scrollTop = log.scrollHeight
  newest.hidden = true
}

function write() {
  const draft = { key: newKey(), nickname: ownName(), text: text.value.trim() }
  if (draft.nickname === '' || draft.text === '') return
  drafts.set(draft.key, draft)
  notice.hidden = true
  const shown = { ...draft, author: draft.nickname, isUser: user !== undefined }
  change(() => outbox.append(makeItem({ ...shown, sentAt: Date.now() })))
  scrollToEnd()
  connection.send(draft)
  text.value = ''
  fitText()
}

// Unlike crypto.randomUUID, getRandomValues is there on pages without https too.
function newKey() {
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(36)).join('-')
}

function fitText() {
  text.style.height = 'auto'
  text.style.height = `${text.scrollHeight + text.offsetHeight - text.clientHeight}px`
}

log.addEventListener('scroll', () => {
  if (isAtEnd()) newest.hidden = true
})
newest.addEventListener('click', scrollToEnd)

text.addEventListener('input', fitText)
text.addEventListener('keydown', (event) => {
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return
  event.preventDefault()
  element('compose').requestSubmit()
})
element('compose').addEventListener('submit', (event) => {
  event.preventDefault()
  write()
  text.focus()
})
nickname?.addEventListener('change', () => {
  localStorage.setItem('nickname', nickname.value.trim())
})

element('go').addEventListener('submit', (event) => {
  event.preventDefault()
  const room = element('room').value.trim().replaceAll('/', '-')
  if (room) location.href = `/${encodeURIComponent(room)}${location.search}`
})
