/**
 * The page of one room. The server sends `history`, `message` and `people`; the page sends
 * `{ key, nickname, text }`. What people wrote reaches the page through `textContent` alone.
 */
import { Connection } from './connection.js'

const element = (id) => document.getElementById(id)
const log = element('log')
const messages = element('messages')
const outbox = element('outbox')
const newest = element('newest')
const nickname = element('nickname')
const text = element('text')

const mostShown = 500
const stateLabels = {
  connecting: 'Connecting…',
  connected: 'Connected',
  waiting: 'Connection lost, trying again…',
}

/** The newest message shown. After a reconnect the server sends what came later. */
let lastId = 0
/** What was written here and has not come back yet, by key. */
const drafts = new Map()

nickname.value =
  localStorage.getItem('nickname') || `Guest ${Math.floor(Math.random() * 900) + 100}`
localStorage.setItem('nickname', nickname.value)

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
    // Screen readers read out what is added from here on, not the history.
    if (frame.type === 'history') messages.setAttribute('aria-busy', 'false')
  },
  onState(state) {
    element('state').dataset.state = state
    element('state').textContent = stateLabels[state]
    if (state !== 'connected') element('people').textContent = ''
  },
})

function socketUrl() {
  const url = new URL(location.href)
  const meta = document.querySelector('meta[name="websocket-port"]')
  const port = url.searchParams.get('ws') ?? meta.content
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:'
  if (port) url.port = port
  url.hash = ''
  url.search = lastId > 0 ? `?after=${lastId}` : ''
  return url
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

function makeItem({ key, nickname: author, text: said, sentAt }) {
  const item = element('item').content.firstElementChild.cloneNode(true)
  item.dataset.author = author
  item.dataset.key = key
  item.classList.toggle('mine', author === nickname.value.trim())
  item.style.setProperty('--hue', hueOf(author))
  item.querySelector('b').textContent = author
  const time = item.querySelector('time')
  const date = new Date(sentAt)
  time.dateTime = date.toISOString()
  time.textContent = formatTime(date)
  item.querySelector('.text').textContent = said
  return item
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
  const draft = { key: newKey(), nickname: nickname.value.trim(), text: text.value.trim() }
  if (draft.nickname === '' || draft.text === '') return
  drafts.set(draft.key, draft)
  change(() => outbox.append(makeItem({ ...draft, sentAt: Date.now() })))
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
nickname.addEventListener('change', () => {
  localStorage.setItem('nickname', nickname.value.trim())
})

element('go').addEventListener('submit', (event) => {
  event.preventDefault()
  const room = element('room').value.trim().replaceAll('/', '-')
  if (room) location.href = `/${encodeURIComponent(room)}${location.search}`
})
