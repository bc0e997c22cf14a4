import { createHash } from 'node:crypto'

/**
 * All that lies in Redis, and the scripts that alone read and write it. A script's text is constant:
 * names and content come as keys and arguments.
 *
 * Every script is given one key, the *base* of the slot it works in, and makes the others by adding
 * to it. Bases, behind the site's prefix:
 *
 * - `{work}`: work channels, lines, waiting receivers and the list of inboxes.
 * - `{reply.…!}`: one inbox.
 * - `{g:NAME}`: one group.
 * - `{processes}`: announcements.
 *
 * Times are milliseconds since the epoch by the server's clock, 16 digits where they are part of a
 * text. Every key has a time to live beyond the expiry of what lies in it.
 *
 * In `{work}`:
 * - `c:CHANNEL` list, entries `ID:EXPIRY:ATTEMPTS:LINELENGTH:` LINE CONTENT in the order of their
 *   ids. An id has 16 digits; LINELENGTH is in bytes, and empty where there is no line. `b` ID `:` EXPIRY `:` COUNT
 *   `:` is a block of so many messages with ids from ID on: for each LENGTH, `:` and as many bytes of what else would
 *   stand behind its expiry, with `*` for LINELENGTH and no LINE where that is to be found in the content, which is
 *   JSON. `blocks` hash, channel → how many messages its blocks have beyond one each; `singles`
 *   hash, channels that somebody takes by lines or holds, where there are to be no blocks.
 * - `channels` hash, channel → a time before which none of its messages expires, and the one its
 *   list is kept until; `parked-counts` hash, channel → how many of its messages are parked.
 * - `lines` hash, line → `T` EXPIRY TOKEN while its turn is held, or `R` EXPIRY ID CHANNEL while its
 *   next message is ready there. `looks` sorted set, line → when to look at it again.
 * - `parked` sorted set of equal scores, members LENGTH `:` LINE ID `:` LENGTH `:` CHANNEL ENTRY.
 * - `lined-up` hash, channel → the last id that was lined up by others than its receivers.
 * - `later` sorted set, CHANNEL ` ` NAME → not to be seen before; `later-entries` hash, the same → KIND and an entry.
 *   Kinds: `d` sent for later, `o` the same and its name is remembered, `s` such a name alone; `h` held by who has
 *   taken it, NAME `/` and the token; `a` to be tried again. `delayed-counts` hash, channel → how many `d` and `o`.
 * - `waiters` sorted set of equal scores, members CHANNEL ` ` NUMBER ` ` WAITER; `waiting` hash,
 *   waiter → the most messages it takes, a space and its members. A waiter is PROCESS `/` SLOT, and is woken by a
 *   message on the publish channel `wake:PROCESS`: the waiter, and what it is handed, if anything, behind a space, the
 *   channel and another space, as packed entries. On a channel of `singles` nobody is handed anything.
 * - `id`, the last id that was given. `inboxes` sorted set, inbox → when it is taken for dead.
 *
 * In an inbox:
 * - `q` list, entries KIND EXPIRY LENGTH `:` TARGET REST. Kinds: `m` message, TARGET the reply
 *   channel behind its `!`, REST content; `g` group message, TARGET the group; `a` and `d` added to
 *   and discarded from a group, TARGET the reply channel, REST the group. `b` EXPIRY COUNT `:` is a
 *   block of so many messages that came in one batch: for each its kind, LENGTH, `:` and as many bytes
 *   of what else would stand behind its expiry.
 * - `meta` hash: `o` that it is open, `n` how many entries are changes of membership, `b` how many
 *   messages the blocks have beyond one each, `w` how many hand-overs its reader waits for, `h` the number of the last entries it was handed, `f` and `u` as in `channels`, `t` the number of the
 *   last answer with changes of membership, `v` that these lie in `taken`, `l` the last
 *   number of a hand-over, `k` how many of the first entries were handed over under it to nobody who was counted.
 *   A waiting reader is handed entries by a message on the publish channel `in`: the new `h`, higher
 *   than all before, a space, and the entries, packed. Where it is to look, or to learn what it has missed, there are none.
 *   Changes of membership are never handed over, since what is published may be lost.
 * - `taken` list, the changes of membership that were taken last, until the reader says that it has them.
 * - `groups` sorted set, group → until when it may have members here.
 *
 * In a group: `m` sorted set, member → its expiry; `i` hash, inbox or work channel → how many members.
 *
 * An order may have a `d`, the time from which on it is not carried out, since its caller has given up.
 *
 * In `{work}` and inboxes: `sender:SENDER` hash, `p` and a part → the number of the sender's last batch that had such a
 * part, `:` and what became of it, so that a batch which is sent again is not stored again. Each batch has a part 0.
 *
 * Packed entries: for each INDEX `:` TURN `:` LENGTH `:` ENTRY, where INDEX is the place of its channel in the
 * call (empty in an inbox) and TURN is `1` when the entry comes with its turn; or for many at once
 * INDEX `:p:` LENGTH `,` LENGTH … `:` ENTRY ENTRY ….
 */
const library = `
local base = KEYS[1]
local call = redis.call
local now
if ARGV[1] ~= '' then now = tonumber(ARGV[1])
else local t = call('TIME') now = t[1] * 1000 + math.floor(t[2] / 1000) end
local function digits(n) return string.format('%08d%08d', math.floor(n / 100000000), n % 100000000) end
local function shown(n) return string.format('%.0f', n) end
local function keep(key, ms)
  if call('PTTL', key) < ms then call('PEXPIRE', key, shown(ms)) end
end
local day = 86400000
local slack = 60000
local expired, lapsed = 0, 0
local packed = {}
local function pack(index, turn, entry)
  local n = #packed
  packed[n + 1] = index .. ':' .. turn .. ':' .. #entry .. ':'
  packed[n + 2] = entry
end
local function pack_all(index, entries)
  if #entries == 0 then return end
  local lengths = {}
  for i = 1, #entries do lengths[i] = #entries[i] end
  local n = #packed
  packed[n + 1] = index .. ':p:' .. table.concat(lengths, ',') .. ':'
  packed[n + 2] = table.concat(entries)
end
-- Whether the caller has given up: the call lay in a connection of a server that stood still.
local function is_late(order) return order.d and now > order.d end
-- What an earlier try of the same batch came to, or nil. It writes nothing: a script that has written
-- once may go on writing when the server's memory is full.
local function done_before(order)
  local found = call('HMGET', base .. 'sender:' .. order.s, 'p0', 'p' .. order.p)
  local function number_of(outcome) return tonumber(outcome and string.match(outcome, '^%d+') or -1) end
  if number_of(found[2]) == order.n then return string.match(found[2], ':(.*)$') end
  if number_of(found[1]) > order.n or is_late(order) then return 'late' end
end
local function note_done(order, outcome)
  local key = base .. 'sender:' .. order.s
  call('HSET', key, 'p' .. order.p, shown(order.n) .. ':' .. outcome)
  if call('PTTL', key) < 120000 then call('PEXPIRE', key, 180000) end
end
`

const workLibrary = `${library}
local function list(channel) return base .. 'c:' .. channel end
local channels, parked_counts = base .. 'channels', base .. 'parked-counts'
local lines, looks, parked = base .. 'lines', base .. 'looks', base .. 'parked'
local waiters, waiting = base .. 'waiters', base .. 'waiting'
local later, later_entries, delayed_counts = base .. 'later', base .. 'later-entries', base .. 'delayed-counts'
local blocks, singles = base .. 'blocks', base .. 'singles'
local publish
-- Of a block its first id, its expiry and no line.
local function read(entry)
  local id, expiry, length, at = string.match(entry, '^b?(%d+):(%d+):%d+:(%d*):()')
  if not id then return '0', 0 end
  if string.byte(entry) == 98 then return id, tonumber(expiry) end
  if length == '' then return id, tonumber(expiry) end
  return id, tonumber(expiry), string.sub(entry, at, at + tonumber(length) - 1)
end
local function first_id(count)
  local last = call('INCRBY', base .. 'id', count)
  if last < 1000000000000 then
    last = now * 1000 + count
    call('SET', base .. 'id', shown(last))
  end
  keep(base .. 'id', 7 * day)
  return last - count
end
-- How many messages an entry has.
local function size_of(entry)
  if string.byte(entry) ~= 98 then return 1 end
  return tonumber(string.match(entry, '^%d+', 36)) or 1
end
local function length_of(name)
  local length = call('LLEN', list(name))
  return length == 0 and 0 or length + tonumber(call('HGET', blocks, name) or 0)
end
local function note_blocks(name, by)
  if by == 0 then return end
  if call('HINCRBY', blocks, name, by) <= 0 then call('HDEL', blocks, name) end
end
-- An entry for messages of a block, of which at is where the first begins and to the byte behind the last.
local function part(block, id, count, at, to)
  local expiry = string.sub(block, 19, 34)
  if count > 1 then
    return 'b' .. digits(id) .. ':' .. expiry .. ':' .. shown(count) .. ':' .. string.sub(block, at, to - 1)
  end
  return digits(id) .. ':' .. expiry .. ':' .. string.sub(block, string.match(block, '^%d+:()', at), to - 1)
end
-- The same single entry with its line, which may be left out in a block.
local function with_line(entry)
  local head, at = string.match(entry, '^(%d+:%d+:%d+:)%*:()')
  if not head then return entry end
  local content = string.sub(entry, at)
  local is_json, found = pcall(cjson.decode, string.sub(content, 2))
  local line = is_json and type(found) == 'table' and found.reply_channel
  if type(line) ~= 'string' then return head .. ':' .. content end
  return head .. #line .. ':' .. line .. content
end
-- Divides a block behind its first so many messages.
local function divide(block, most)
  local id, count, start = string.match(block, '^b(%d+):%d+:(%d+):()')
  id, count = tonumber(id), tonumber(count)
  local at = start
  for i = 1, most do
    local length, body = string.match(block, '^(%d+):()', at)
    at = body + length
  end
  local rest = part(block, id + most, count - most, at, #block + 1)
  if count - most == 1 then rest = with_line(rest) end
  return part(block, id, most, start, at), rest
end
local function singles_of(block)
  local id, expiry, at = string.match(block, '^b(%d+):(%d+):%d+:()')
  local found = {}
  while at <= #block do
    local length, body = string.match(block, '^(%d+):()', at)
    at = body + length
    local start = digits(id + #found) .. ':' .. expiry .. ':'
    found[#found + 1] = with_line(start .. string.sub(block, body, at - 1))
  end
  return found
end
-- Puts single entries in the place of a channel's blocks.
local function unblock(name)
  local more = tonumber(call('HGET', blocks, name) or 0)
  if more == 0 then return end
  local key = list(name)
  local ttl = call('PTTL', key)
  local behind = {}
  while more > 0 do
    local entry = call('RPOP', key)
    if not entry then break end
    more = more - size_of(entry) + 1
    behind[#behind + 1] = entry
  end
  for i = #behind, 1, -1 do
    local entry = behind[i]
    if size_of(entry) == 1 then call('RPUSH', key, entry)
    else call('RPUSH', key, unpack(singles_of(entry))) end
  end
  call('HDEL', blocks, name)
  if ttl > 0 then call('PEXPIRE', key, ttl) end
end
local function unregister(waiter)
  local found = call('HGET', waiting, waiter)
  if not found then return false end
  call('HDEL', waiting, waiter)
  call('ZREM', waiters, unpack(cjson.decode(string.match(found, ' (.*)$'))))
  return true
end
local function register(waiter, names, most)
  unregister(waiter)
  local number = digits(first_id(1))
  local members, scored = {}, {}
  for i, name in ipairs(names) do
    members[i] = name .. ' ' .. number .. ' ' .. waiter
    scored[2 * i - 1] = 0
    scored[2 * i] = members[i]
  end
  call('ZADD', waiters, unpack(scored))
  call('HSET', waiting, waiter, shown(most) .. ' ' .. cjson.encode(members))
  keep(waiters, day)
  keep(waiting, day)
end
local function next_waiter(name)
  local found = call('ZRANGEBYLEX', waiters, '[' .. name .. ' ', '(' .. name .. '!', 'LIMIT', 0, 1)[1]
  if found then return string.match(found, '^[^ ]+ %d+ (.*)$'), found end
end
local function wake_of(waiter) return base .. 'wake:' .. string.match(waiter, '^[^/]+') end
local function forget_waiter(waiter, member)
  if not unregister(waiter) then call('ZREM', waiters, member) end
end
-- Tells a waiter, which is none from then on; returns whether it lives.
local function tell(waiter, member, message)
  forget_waiter(waiter, member)
  return call(publish, wake_of(waiter), message) > 0
end
-- Wakes who has waited longest for the channel, and lives.
local function wake(name)
  while true do
    local waiter, member = next_waiter(name)
    if not waiter or tell(waiter, member, waiter) then return end
  end
end
-- Gives the entries of so many messages to who has waited longest for the channel, and lives; returns whether it did.
local function hand_over(name, entries, count)
  local message
  while true do
    local waiter, member = next_waiter(name)
    if not waiter then return false end
    -- Behind a failover it may hear this by way of a replica, and is not counted: that must be no content.
    if call('PUBSUB', 'NUMSUB', wake_of(waiter))[2] == 0 then forget_waiter(waiter, member)
    else
      local most = string.match(call('HGET', waiting, waiter) or '', '^%d+ ')
      if not most or tonumber(most) < count then return false end
      if not message then
        pack_all('', entries)
        message = ' ' .. name .. ' ' .. table.concat(packed)
      end
      if tell(waiter, member, waiter .. message) then return true end
    end
  end
end
-- Notes that messages of these times of expiry were put on a channel; is_new says that its list was empty.
local function note_expiry(name, least, most, is_new)
  local found = call('HGET', channels, name)
  local first, last = 0, 0
  if found then
    first, last = tonumber(string.sub(found, 1, 16)), tonumber(string.sub(found, 18))
    if is_new and most <= last then call('PEXPIRE', list(name), shown(last - now + slack)) end
    if first <= least and most <= last then return end
    first = math.min(first, least)
  else
    first = least
  end
  local is_longer = most > last
  if is_longer then last = most + slack end
  call('HSET', channels, name, digits(first) .. ' ' .. digits(last))
  if is_longer then
    keep(list(name), last - now + slack)
    keep(channels, math.max(last - now + slack, day))
  end
end
-- Deletes expired messages of a channel: those at its head, or when there are none all.
local function reclaim(name, thorough)
  local found = call('HGET', channels, name)
  if found and tonumber(string.sub(found, 1, 16)) > now then return 0 end
  unblock(name)
  local key = list(name)
  local count = 0
  while true do
    local head = call('LRANGE', key, 0, 99)
    local gone = 0
    for i = 1, #head do
      local _, expiry = read(head[i])
      if expiry > now then break end
      gone = gone + 1
    end
    if gone > 0 then call('LTRIM', key, gone, -1) end
    count = count + gone
    if gone < 100 then break end
  end
  if count > 0 and not thorough then
    expired = expired + count
    return count
  end
  local all = call('LRANGE', key, 0, -1)
  local least
  local gone = {}
  for i = 1, #all do
    local _, expiry = read(all[i])
    if expiry <= now then gone[#gone + 1] = all[i]
    elseif not least or expiry < least then least = expiry end
  end
  for i = 1, #gone do call('LREM', key, 1, gone[i]) end
  count = count + #gone
  expired = expired + count
  if least then
    local last = found and string.sub(found, 18) or digits(least)
    -- Refused where the memory is full and nothing was deleted, which only means to look again.
    redis.pcall('HSET', channels, name, digits(least) .. ' ' .. last)
  else
    call('HDEL', channels, name)
  end
  return count
end
-- Puts an entry where its id belongs.
local function put_back(name, entry)
  local key = list(name)
  local id, expiry = read(entry)
  local head = call('LINDEX', key, 0)
  local is_first = not head or id < read(head)
  if not is_first then unblock(name) end
  if is_first then
    call('LPUSH', key, entry)
  elseif id > read(call('LINDEX', key, -1)) then
    call('RPUSH', key, entry)
  else
    local all = call('LRANGE', key, 0, -1)
    for i = 1, #all do
      local other = read(all[i])
      if other == id then return end
      if other > id then
        call('LINSERT', key, 'BEFORE', all[i], entry)
        break
      end
    end
  end
  note_expiry(name, expiry, expiry, not head)
  wake(name)
end
-- Puts an entry at the end of a channel, under a new id.
local function append(name, rest, expiry)
  local length = call('RPUSH', list(name), digits(first_id(1)) .. rest)
  note_expiry(name, expiry, expiry, length == 1)
  wake(name)
end
local function keep_later(ms)
  keep(later, ms + day)
  keep(later_entries, ms + day)
  keep(delayed_counts, ms + day)
end
local function count_delayed(name, by)
  if call('HINCRBY', delayed_counts, name, by) <= 0 then call('HDEL', delayed_counts, name) end
end
local function forget_later(key)
  call('ZREM', later, key)
  return call('HDEL', later_entries, key) == 1
end
-- Keeps live entries that were taken of a channel until they are settled, where it is one of by.c.
local function hold(by, name, taken)
  if not by then return end
  local held = false
  for _, other in ipairs(by.c) do held = held or other == name end
  if not held then return end
  local ends = shown(now + by.lease)
  local scores, entries = {}, {}
  local last = 0
  for i, entry in ipairs(taken) do
    local id, expiry = read(entry)
    if expiry > now then
      local key = name .. ' /' .. by.t .. id
      local n = #scores
      scores[n + 1], scores[n + 2] = ends, key
      entries[n + 1], entries[n + 2] = key, 'h' .. entry
      if expiry > last then last = expiry end
    end
    if #scores > 0 and (#scores >= 1000 or i == #taken) then
      call('ZADD', later, unpack(scores))
      call('HSET', later_entries, unpack(entries))
      scores, entries = {}, {}
    end
  end
  if last > 0 then keep_later(math.max(by.lease, last - now) + slack) end
end
local redelivered = 0
-- Puts what is due on its channel: what was held where it was, the rest at the end. Returns how many.
local function release_later(most, expiry_ms)
  local keys = call('ZRANGEBYSCORE', later, '-inf', shown(now), 'WITHSCORES', 'LIMIT', 0, most)
  local due = {}
  for i = 1, #keys, 2 do
    local entry = call('HGET', later_entries, keys[i])
    if entry then due[#due + 1] = {keys[i], entry, tonumber(keys[i + 1]), string.sub(entry, 2, 17)}
    else call('ZREM', later, keys[i]) end
  end
  table.sort(due, function(a, b)
    if a[3] ~= b[3] then return a[3] < b[3] end
    return a[4] < b[4]
  end)
  for _, one in ipairs(due) do
    local key, value = one[1], one[2]
    local kind, entry = string.sub(value, 1, 1), string.sub(value, 2)
    local name = string.match(key, '^[^ ]+')
    local _, expiry = read(entry)
    if kind == 'o' then
      call('ZADD', later, shown(now + 3600000), key)
      call('HSET', later_entries, key, 's' .. string.sub(entry, 1, 16))
      keep_later(3600000)
    else forget_later(key) end
    if kind == 'd' or kind == 'o' then count_delayed(name, -1) end
    if kind == 'h' then
      local attempts, at = string.match(entry, '^%d+:%d+:(%d+)()')
      redelivered = redelivered + 1
      put_back(name, string.sub(entry, 1, 17) .. digits(math.max(expiry, now + expiry_ms)) .. ':'
        .. shown(tonumber(attempts) + 1) .. string.sub(entry, at))
    elseif kind ~= 's' then
      if expiry > now then append(name, string.sub(entry, 17), expiry)
      else expired = expired + 1 end
    end
  end
  return #keys / 2
end
local function of_line(line) return #line .. ':' .. line end
local function count_parked(name, by)
  if call('HINCRBY', parked_counts, name, by) <= 0 then call('HDEL', parked_counts, name) end
end
local function parked_in_line(line, name)
  local prefix = of_line(line)
  local all = call('ZRANGEBYLEX', parked, '[' .. prefix, '(' .. prefix .. ':')
  local on = ':' .. #name .. ':' .. name
  local count = 0
  for i = 1, #all do
    local at = #prefix + 17
    if string.sub(all[i], at, at + #on - 1) == on then count = count + 1 end
  end
  return count
end
local function park(line, name, entry)
  local id, expiry = read(entry)
  call('ZADD', parked, 0, of_line(line) .. id .. ':' .. #name .. ':' .. name .. entry)
  keep(parked, math.max(expiry - now + slack, day))
  keep(parked_counts, math.max(expiry - now + slack, day))
  count_parked(name, 1)
end
local function parked_entry(member, prefix)
  local length, at = string.match(member, '^:(%d+):()', #prefix + 17)
  local name = string.sub(member, at, at + length - 1)
  return name, string.sub(member, at + length)
end
local function unpark(line)
  local prefix = of_line(line)
  while true do
    local member = call('ZRANGEBYLEX', parked, '[' .. prefix, '(' .. prefix .. ':', 'LIMIT', 0, 1)[1]
    if not member then return end
    call('ZREM', parked, member)
    local name, entry = parked_entry(member, prefix)
    count_parked(name, -1)
    local _, expiry = read(entry)
    if expiry > now then return name, entry end
    expired = expired + 1
  end
end
local function set_line(line, state, look)
  call('HSET', lines, line, state)
  call('ZADD', looks, shown(look), line)
end
local function keep_lines(ms)
  keep(lines, math.max(ms, day))
  keep(looks, math.max(ms, day))
end
local function free_line(line)
  call('HDEL', lines, line)
  call('ZREM', looks, line)
end
local look_ms = 1000
local function make_ready(line, name, entry)
  local id, expiry = read(entry)
  set_line(line, 'R' .. digits(expiry) .. id .. name, math.min(expiry, now + look_ms))
  keep_lines(expiry - now + slack)
  put_back(name, entry)
end
local function is_over(state) return tonumber(string.sub(state, 2, 17)) <= now end
-- Ends a turn that nobody passed on, or the wait for a head that is gone.
local function go_on(line, state)
  if string.byte(state) == 84 then lapsed = lapsed + 1 end
  local name, entry = unpark(line)
  if name then make_ready(line, name, entry) else free_line(line) end
end
local function is_head(state, id)
  return state and string.byte(state) == 82 and string.sub(state, 18, 33) == id
end
local function lose_head(state)
  local head = call('LINDEX', list(string.sub(state, 34)), 0)
  return not head or read(head) > string.sub(state, 18, 33)
end
`

/** So many inboxes are found dead by one `cleanUp`, of which there may be more then. */
export const mostDead = 1_000

/** A script and its digest. */
export interface Script {
  readonly name: string
  readonly text: string
  readonly sha: string
}

function script(name: string, prelude: string, body: string): Script {
  const text = `${neededOf(prelude, body)}${body}`
  return { name, text, sha: createHash('sha1').update(text).digest('hex') }
}

/**
 * What a script needs of its library: each definition costs every call of it some 0.2 µs. A definition begins with
 * `local` at the start of a line, and its comments stand before it.
 */
function neededOf(prelude: string, body: string): string {
  const parts: string[] = []
  let isComment = false
  for (const line of prelude.split('\n')) {
    const begins = line.startsWith('local ') || line.startsWith('--')
    if (begins && !isComment) parts.push(line)
    else parts.push(`${parts.pop() ?? ''}\n${line}`)
    isComment = line.startsWith('--')
  }
  let text = body
  for (const part of parts.reverse()) {
    const names = /^local (?:function )?([\w, ]+)/m.exec(part)?.[1]?.split(',') ?? []
    const isNeeded = names.some((name) => new RegExp(`\\b${name.trim()}\\b`).test(text))
    if (isNeeded || names.length === 0) text = `${part}\n${text}`
  }
  return text.slice(0, -body.length)
}

/**
 * `{work}`, now, ORDER, then for each message `ATTEMPTS:LINELENGTH:` LINE CONTENT.
 *
 * ORDER is JSON: `s`, `n`, `p` sender, number and part of the batch; `c` channels and `k` their
 * capacities; `o` the place in `c` of each message's channel, or absent when all go to the first;
 * `e` place of a message → its time of expiry, where it is not `x` milliseconds from now; `l` the
 * capacity of a line; `u` PUBLISH or SPUBLISH; `h` that messages may be handed to who waits. With `b` each argument is as many messages as stand there in its
 * place: where these are several, what follows the COUNT of a block; `o` then has the channel of each argument.
 *
 * Returns now, the expired count, and what was not stored: `PLACE` and `f` full or `l` line full,
 * with commas; or of blocks `b` that there is no room for all, or `s` that a channel is to have none.
 */
const send = script(
  'send',
  workLibrary,
  `
local order = cjson.decode(ARGV[2])
publish = order.u
local before = done_before(order)
if before then return {shown(now), 0, before} end
local count = #ARGV - 2
local standard = digits(now + order.x)
if order.b then
  local sums, total = {}, 0
  for i = 1, count do
    local c = order.o and order.o[i] or 1
    sums[c] = (sums[c] or 0) + order.b[i]
    total = total + order.b[i]
  end
  local empty = {}
  for c, sum in pairs(sums) do
    local name = order.c[c]
    if call('HEXISTS', singles, name) == 1 then return {shown(now), 0, 's'} end
    local held, length = tonumber(call('HGET', parked_counts, name) or 0), length_of(name)
    if held >= order.l or order.k[c] - length - held < sum then return {shown(now), 0, 'b'} end
    empty[c] = length == 0
  end
  local id = first_id(total) + 1
  local new, more = {}, {}
  for i = 1, count do
    local c = order.o and order.o[i] or 1
    local n = order.b[i]
    local entries = new[c]
    if not entries then
      entries = {}
      new[c], more[c] = entries, 0
    end
    if n == 1 then entries[#entries + 1] = digits(id) .. ':' .. standard .. ':' .. ARGV[i + 2]
    else
      entries[#entries + 1] = 'b' .. digits(id) .. ':' .. standard .. ':' .. shown(n) .. ':' .. ARGV[i + 2]
      more[c] = more[c] + n - 1
    end
    id = id + n
  end
  for c, entries in pairs(new) do
    local name = order.c[c]
    packed = {}
    if not (order.h and empty[c] and hand_over(name, entries, sums[c])) then
      local length = call('RPUSH', list(name), unpack(entries))
      if length == #entries then call('HDEL', blocks, name) end
      note_blocks(name, more[c])
      note_expiry(name, now + order.x, now + order.x, length == #entries)
      if more[c] > 0 then keep(blocks, math.max(order.x + 3 * slack, day)) end
      wake(name)
    end
  end
  note_done(order, '')
  return {shown(now), 0, ''}
end
local id = first_id(count)
local new, room, crowded, least, most = {}, {}, {}, {}, {}
local refused = {}
local first = 1
local mid = ':' .. standard .. ':'
local thousands, start
local function entry_of(n, body)
  local h = math.floor(n / 1000)
  if h ~= thousands then thousands, start = h, string.format('%013.0f', h) end
  return start .. string.format('%03d', n - h * 1000) .. mid .. body
end
if not order.o and not order.e then
  -- The usual: one channel with room for all.
  local name = order.c[1]
  local held = tonumber(call('HGET', parked_counts, name) or 0)
  local before = length_of(name)
  if held < order.l and order.k[1] - before - held >= count then
    local entries = {}
    for i = 1, count do entries[i] = entry_of(id + i, ARGV[i + 2]) end
    local may_hand = order.h and before == 0 and call('HEXISTS', singles, name) == 0
    if not (may_hand and hand_over(name, entries, count)) then
      local length = call('RPUSH', list(name), unpack(entries))
      note_expiry(name, now + order.x, now + order.x, length == count)
      wake(name)
    end
    first = count + 1
  end
end
for i = first, count do
  local c = order.o and order.o[i] or 1
  local name = order.c[c]
  local body = ARGV[i + 2]
  if not room[c] then
    local held = tonumber(call('HGET', parked_counts, name) or 0)
    room[c] = order.k[c] - length_of(name) - held
    crowded[c] = held >= order.l
    new[c] = {}
    least[c], most[c] = 9e15, 0
  end
  if room[c] <= 0 then room[c] = room[c] + reclaim(name) end
  local reason
  if room[c] <= 0 then reason = 'f'
  elseif crowded[c] then
    local _, _, line = read('0:0:' .. body)
    if line and parked_in_line(line, name) >= order.l then reason = 'l' end
  end
  if reason then refused[#refused + 1] = i .. reason
  else
    local at = order.e and order.e[tostring(i)]
    local expiry = at or now + order.x
    new[c][#new[c] + 1] = at and digits(id + i) .. ':' .. digits(at) .. ':' .. body
      or entry_of(id + i, body)
    if expiry < least[c] then least[c] = expiry end
    if expiry > most[c] then most[c] = expiry end
    room[c] = room[c] - 1
  end
end
for c, entries in pairs(new) do
  if #entries > 0 then
    local name = order.c[c]
    local length = call('RPUSH', list(name), unpack(entries))
    note_expiry(name, least[c], most[c], length == #entries)
    wake(name)
  end
end
local outcome = table.concat(refused, ',')
note_done(order, outcome)
return {shown(now), expired, outcome}
`,
)

// A script costs what it defines: who takes neither lines nor holds does without theirs.
const claimBody = (lines: string): string => {
  const holds = lines !== ''
  return `
local order = cjson.decode(ARGV[2])
publish = order.u
if is_late(order) then return {shown(now), 0, 0, ''} end
if order.r and call('HEXISTS', waiting, order.r) == 0 then return {shown(now), 0, 0, '', {}, 1} end
local left = order.m
local plain = order.c
local more = {}
local raw, beyond = {}, {}
-- Takes up to so many messages of a channel; returns how many.
local function pop(i, most)
  local key = list(plain[i])
  if not beyond[i] then
    local got = call('LPOP', key, most)
    if not got then return 0 end
${holds ? '    hold(order.h, plain[i], got)\n' : ''}    local n = #raw + 1
    raw[n] = i
    for at = 1, #got do raw[n + at] = got[at] end
    return #got
  end
  local size, less = 0, 0
  while size < most do
    local entry = call('LPOP', key)
    if not entry then break end
    local count = size_of(entry)
    if size + count > most then
      local rest
      count = most - size
      entry, rest = divide(entry, count)
      less = less + count
      local _, expiry = read(rest)
      note_expiry(plain[i], expiry, expiry, call('LPUSH', key, rest) == 1)
    else less = less + count - 1 end
    if size == 0 then raw[#raw + 1] = i end
    raw[#raw + 1] = entry
    size = size + count
  end
  note_blocks(plain[i], -less)
  return size
end
local function take_plain()
  local busy = {}
  for i = 1, #plain do
    if call('LLEN', list(plain[i])) > 0 then busy[#busy + 1] = i end
  end
  local n = #busy
  local full = {}
  for at = 1, n do
    local i = busy[at]
    if left == 0 then more[#more + 1] = plain[i]
    else
      local share = math.ceil(left / (n - at + 1))
      local got = pop(i, share)
      left = left - got
      if got == share then full[#full + 1] = i end
    end
  end
  for _, i in ipairs(full) do
    if left > 0 and n > 1 then left = left - pop(i, left) end
    if left == 0 then more[#more + 1] = plain[i] end
  end
end
${lines}if #plain > 0 then beyond = call('HMGET', blocks, unpack(plain)) end
${lines && 'if by then take_lines(by, math.min(left, by.share)) end\n'}take_plain()
${lines && afterLines}if #packed + #raw > 0 then
  -- It waits no more; a wake-up would be lost on it.
  if order.r then unregister(order.r) end
  for _, name in ipairs(more) do if call('EXISTS', list(name)) == 1 then wake(name) end end
elseif order.w then
  local names = {}
  for _, name in ipairs(plain) do names[#names + 1] = name end
${lines && '  for _, name in ipairs(by and by.c or {}) do names[#names + 1] = name end\n'}  register(order.w, names, left)
end
return {shown(now), expired, lapsed, table.concat(packed), raw}
`
}

const afterLines = `if by and left > 0 then take_lines(by, left) end
for name, id in pairs(lined_up) do
  call('HSET', base .. 'lined-up', name, id)
  keep(base .. 'lined-up', day)
end
`

const claimLinesPart = `local lined_up = {}
-- What waits elsewhere before an id and was not lined up yet.
local function others_before(id, by)
  local found = {}
  for _, name in ipairs(by.e or {}) do
    local key = list(name)
    local seen = lined_up[name] or call('HGET', base .. 'lined-up', name) or ''
    local to, is_seen = -1, false
    while not is_seen do
      local some = call('LRANGE', key, to - 49, to)
      for i = #some, 1, -1 do
        local other, expiry, line = read(some[i])
        if other <= seen then
          is_seen = true
          break
        end
        if other < id then found[#found + 1] = {other, name, some[i], line, expiry} end
      end
      if #some < 50 then break end
      to = to - 50
    end
  end
  table.sort(found, function(a, b) return a[1] < b[1] end)
  return found
end
local function line_up(other)
  local id, name, entry, line, expiry = unpack(other)
  lined_up[name] = id
  if not line or expiry <= now then return end
  local state = call('HGET', lines, line)
  if not state then
    set_line(line, 'R' .. digits(expiry) .. id .. name, math.min(expiry, now + look_ms))
    keep_lines(expiry - now + slack)
  elseif not is_head(state, id) then
    call('LREM', list(name), 1, entry)
    park(line, name, entry)
  end
end
local function take_lines(by, most)
  look_ms = by.lease
  local lease_ends = digits(now + by.lease)
  local taken = 0
  local again = most > 0
  while again and taken < most do
    again = false
    local asked = most - taken
    local heads, at, used, size = {}, {}, {}, 0
    local last = ''
    for i, name in ipairs(by.c) do
      heads[i] = call('LRANGE', list(name), 0, asked - 1)
      at[i], used[i] = 1, 0
      size = size + #heads[i]
      if #heads[i] > 0 then
        local id = read(heads[i][#heads[i]])
        if id > last then last = id end
      end
    end
    if size == 0 then return end
    local others = others_before(last, by)
    local next_other = 1
    local ids = {}
    for i = 1, #by.c do ids[i] = heads[i][1] and read(heads[i][1]) end
    local function flush()
      for i, name in ipairs(by.c) do
        if used[i] > 0 then
          call('LTRIM', list(name), used[i], -1)
          used[i] = 0
        end
      end
    end
    while taken < most do
      local c
      for i = 1, #by.c do
        if ids[i] and (not c or ids[i] < ids[c]) then c = i end
      end
      if not c then break end
      local name, entry = by.c[c], heads[c][at[c]]
      local id, expiry, line = read(entry)
      while others[next_other] and others[next_other][1] < id do
        line_up(others[next_other])
        next_other = next_other + 1
      end
      at[c] = at[c] + 1
      used[c] = used[c] + 1
      local following = heads[c][at[c]]
      ids[c] = following and read(following)
      local state = line and call('HGET', lines, line)
      local is_live = expiry > now
      if not is_live then expired = expired + 1 end
      local moved = false
      if state and ((is_live and is_over(state)) or (not is_live and is_head(state, id))) then
        flush()
        go_on(line, state)
        state = call('HGET', lines, line)
        moved = true
      end
      if is_live then
        if not line then
          pack(#plain + c, '', entry)
          hold(order.h, name, {entry})
          taken = taken + 1
        elseif state and not is_head(state, id) then
          park(line, name, entry)
        else
          set_line(line, 'T' .. lease_ends .. by.t .. id, now + by.lease)
          keep_lines(by.lease + slack)
          pack(#plain + c, '1', entry)
          hold(order.h, name, {entry})
          taken = taken + 1
        end
      end
      if moved then
        again = true
        break
      end
      -- Behind the last that was read of this channel there may be older ones than on the others.
      if not following and #heads[c] == asked then
        again = true
        break
      end
    end
    flush()
  end
  left = left - taken
  if taken == most then for _, name in ipairs(by.c) do more[#more + 1] = name end end
end
local by = order.l
if by or order.h then
  -- Writes nothing, and lets the rest be written though the server's memory is full.
  call('HDEL', singles, '')
  for _, names in ipairs({by and by.c or {}, by and by.e or {}, order.h and order.h.c or {}}) do
    for _, name in ipairs(names) do
      if call('HEXISTS', singles, name) == 0 then call('HSET', singles, name, '1') end
      unblock(name)
    end
  end
  keep(singles, day)
end
`

/**
 * `{work}`, now, ORDER. ORDER is JSON: `c` channels received without lines, `m` most messages; `w`
 * the waiter to register when there is none, absent to ask once, and `r` the waiter to forget when
 * there is one, without which it takes and registers nothing; `l` lines: `c` channels, `e`
 * channels elsewhere, `lease` milliseconds, `t` start of the tokens, `share` most messages before
 * those of the others; `h` holds: `c` channels, `lease` milliseconds, `t` start of the tokens; `u`.
 *
 * Returns now, the expired and the lapsed count, and packed entries of `l.c`, where INDEX counts on from `c`; then the
 * entries of each of `c`, blocks and expired messages among them, behind its place in `c` as a number; then `1` when
 * the waiter `r` has been woken or handed something meanwhile. The token of a turn or hold is `t` and the id.
 */
const claim = script('claim', workLibrary, claimBody(''))

/** As `claim`, which gives no lines and no holds. */
const claimLines = script('claimLines', workLibrary, claimBody(claimLinesPart))

/**
 * `{work}`, now, ORDER, then for each message `ATTEMPTS:LINELENGTH:` LINE CONTENT: keeps them until their times.
 *
 * ORDER is JSON: `s`, `n`, `p` as in `send`; `c` channels and `o` the place in `c` of each message's; `i` names, `v`
 * times, `e` times of expiry, `w` a letter each: `d` or `o`; `k` most for one channel.
 *
 * Returns as `send` does.
 */
const putOff = script(
  'putOff',
  workLibrary,
  `
local order = cjson.decode(ARGV[2])
local before = done_before(order)
if before then return {shown(now), 0, before} end
local count = #ARGV - 2
local id = first_id(count)
local refused, last = {}, 0
for i = 1, count do
  local name = order.c[order.o[i]]
  local key = name .. ' ' .. order.i[i]
  if call('HEXISTS', later_entries, key) == 0 then
    if tonumber(call('HGET', delayed_counts, name) or 0) >= order.k then refused[#refused + 1] = i .. 'f'
    else
      local entry = digits(id + i) .. ':' .. digits(order.e[i]) .. ':' .. ARGV[i + 2]
      call('HSET', later_entries, key, string.sub(order.w, i, i) .. entry)
      call('ZADD', later, shown(order.v[i]), key)
      count_delayed(name, 1)
      last = math.max(last, order.v[i], order.e[i])
    end
  end
end
if last > 0 then keep_later(math.max(0, last - now) + slack) end
local outcome = table.concat(refused, ',')
note_done(order, outcome)
return {shown(now), 0, outcome}
`,
)

/**
 * `{work}`, now, ORDER, then names: takes back what waits for its time on the channel `c`. ORDER is JSON: `s`, `n`,
 * `p`, `c`. Returns now, and for each `1` when it was there, else `0`.
 */
const cancel = script(
  'cancel',
  workLibrary,
  `
local order = cjson.decode(ARGV[2])
local before = done_before(order)
if before then return {shown(now), before} end
local found = {}
for i = 3, #ARGV do
  local key = order.c .. ' ' .. ARGV[i]
  local kind = string.sub(call('HGET', later_entries, key) or '', 1, 1)
  if kind == 'd' or kind == 'o' then
    forget_later(key)
    count_delayed(order.c, -1)
    found[#found + 1] = '1'
  else
    found[#found + 1] = '0'
  end
end
local outcome = table.concat(found)
note_done(order, outcome)
return {shown(now), outcome}
`,
)

/**
 * `{work}`, now, ORDER, then for each hold its channel, its token, and of what is stored instead, or nothing:
 * the channel, its capacity, a time or nothing for now, and `EXPIRY:ATTEMPTS:LINELENGTH:` LINE CONTENT. ORDER is JSON:
 * `s`, `n`, `p`, `u`. Returns now, and for each `s` settled, `l` lost or `f` full.
 */
const settle = script(
  'settle',
  workLibrary,
  `
local order = cjson.decode(ARGV[2])
publish = order.u
local before = done_before(order)
if before then return {shown(now), before} end
local outcomes = {}
for i = 3, #ARGV, 6 do
  local key = ARGV[i] .. ' /' .. ARGV[i + 1]
  local name, at, rest = ARGV[i + 2], ARGV[i + 4], ARGV[i + 5]
  local outcome = 's'
  if string.sub(call('HGET', later_entries, key) or '', 1, 1) ~= 'h' then outcome = 'l'
  elseif name == '' then forget_later(key)
  elseif at == '' then
    local held = tonumber(call('HGET', parked_counts, name) or 0)
    local room = tonumber(ARGV[i + 3]) - length_of(name) - held
    if room <= 0 then room = room + reclaim(name) end
    if room <= 0 then outcome = 'f'
    else
      forget_later(key)
      append(name, ':' .. rest, tonumber(string.match(rest, '^%d+')))
    end
  else
    forget_later(key)
    key = name .. ' /' .. ARGV[i + 1]
    call('ZADD', later, at, key)
    call('HSET', later_entries, key, 'a' .. digits(first_id(1)) .. ':' .. rest)
    local last = math.max(tonumber(at), tonumber(string.match(rest, '^%d+')))
    keep_later(math.max(0, last - now) + slack)
  end
  outcomes[#outcomes + 1] = outcome
end
local outcome = table.concat(outcomes)
note_done(order, outcome)
return {shown(now), outcome}
`,
)

/**
 * `{work}`, now, milliseconds, then for each hold its channel and token. Returns now, and for each `1` when it lasts
 * so long from now, else `0`.
 */
const renewHolds = script(
  'renewHolds',
  workLibrary,
  `
local ends = now + tonumber(ARGV[2])
local held = {}
for i = 3, #ARGV, 2 do
  local key = ARGV[i] .. ' /' .. ARGV[i + 1]
  if string.sub(call('HGET', later_entries, key) or '', 1, 1) == 'h' then
    call('ZADD', later, shown(ends), key)
    held[#held + 1] = '1'
  else
    held[#held + 1] = '0'
  end
end
keep_later(tonumber(ARGV[2]) + slack)
return {shown(now), table.concat(held)}
`,
)

/**
 * `{work}`, now, ORDER: ends the wait of `w`; where it was woken already, wakes another for what
 * lies on its channels `c`. ORDER is JSON with `u` besides. Returns `1`, or `0` when it was woken already.
 */
const unwait = script(
  'unwait',
  workLibrary,
  `
local order = cjson.decode(ARGV[2])
publish = order.u
if unregister(order.w) then return 1 end
for _, name in ipairs(order.c) do if call('EXISTS', list(name)) == 1 then wake(name) end end
return 0
`,
)

/**
 * `{work}`, now, ORDER, then for each message its channel, its entry, the token of its turn or nothing, and
 * that of its hold or nothing. ORDER is JSON: `s`, `n`, `p`, `u`. Returns now and how many had lapsed, `-1` when it came too late.
 */
const handBack = script(
  'handBack',
  workLibrary,
  `
local order = cjson.decode(ARGV[2])
publish = order.u
local before = done_before(order)
if before then return {shown(now), tonumber(before) or -1} end
for i = 3, #ARGV, 4 do
  local name, entry, token, hold = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local key = name .. ' /' .. hold
  if hold ~= '' and not forget_later(key) then lapsed = lapsed + 1
  elseif token == '' then put_back(name, entry)
  else
    local _, _, line = read(entry)
    local state = line and call('HGET', lines, line)
    if state and string.byte(state) == 84 and string.sub(state, 18) == token then
      make_ready(line, name, entry)
    elseif hold ~= '' then
      put_back(name, entry)
    else
      lapsed = lapsed + 1
    end
  end
end
note_done(order, tostring(lapsed))
return {shown(now), lapsed}
`,
)

/**
 * `{work}`, now, ORDER, then for each turn its line and token. ORDER is JSON: `c` the channels the
 * caller consumes, `lease` milliseconds, `t` start of the new tokens, `h` as in `claim`, `u`.
 *
 * Returns now, the expired count, packed entries, and for each turn `1` when it was lost, else `0`.
 */
const advance = script(
  'advance',
  workLibrary,
  `
local order = cjson.decode(ARGV[2])
publish = order.u
look_ms = order.lease
if is_late(order) then return {shown(now), 0, '', string.rep('1', (#ARGV - 2) / 2)} end
local index = {}
for i, name in ipairs(order.c) do index[name] = i end
local lost = {}
for i = 3, #ARGV, 2 do
  local line, token = ARGV[i], ARGV[i + 1]
  local state = call('HGET', lines, line)
  if not (state and string.byte(state) == 84 and string.sub(state, 18) == token) then
    lost[#lost + 1] = '1'
  else
    lost[#lost + 1] = '0'
    local name, entry = unpark(line)
    if not name then free_line(line)
    elseif index[name] then
      local id = read(entry)
      set_line(line, 'T' .. digits(now + order.lease) .. order.t .. id, now + order.lease)
      pack(index[name], '1', entry)
      hold(order.h, name, {entry})
    else make_ready(line, name, entry) end
  end
end
return {shown(now), expired, table.concat(packed), table.concat(lost)}
`,
)

/**
 * `{work}`, now, milliseconds, then for each turn its line and token. Returns now, and for each turn
 * `1` when it still is the caller's, else `0`.
 */
const renewLines = script(
  'renewLines',
  workLibrary,
  `
local ends = now + tonumber(ARGV[2])
local held = {}
for i = 3, #ARGV, 2 do
  local line, token = ARGV[i], ARGV[i + 1]
  local state = call('HGET', lines, line)
  if state and string.byte(state) == 84 and string.sub(state, 18) == token then
    set_line(line, 'T' .. digits(ends) .. token, ends)
    held[#held + 1] = '1'
  else
    held[#held + 1] = '0'
  end
end
keep_lines(ends - now + slack)
return {shown(now), table.concat(held)}
`,
)

/**
 * `{work}`, now, ORDER: lets lines go on whose turn or ready head lapsed, or whose head a receiver
 * without lines took; then puts up to `m` messages on their channels whose time has come. ORDER is JSON:
 * `lease` milliseconds until a ready head is looked at again, `x` how long messages live that were held, `m`, `u`.
 *
 * Returns now, the expired, the lapsed and the redelivered count, how many were due, and when to look
 * again, or nothing.
 */
const release = script(
  'release',
  workLibrary,
  `
local order = cjson.decode(ARGV[2])
publish = order.u
look_ms = order.lease
for _, line in ipairs(call('ZRANGEBYSCORE', looks, '-inf', shown(now), 'LIMIT', 0, 500)) do
  local state = call('HGET', lines, line)
  if not state then call('ZREM', looks, line)
  elseif is_over(state) then go_on(line, state)
  elseif string.byte(state) == 84 then
    call('ZADD', looks, shown(tonumber(string.sub(state, 2, 17))), line)
  elseif lose_head(state) then go_on(line, state)
  else
    local expiry = tonumber(string.sub(state, 2, 17))
    call('ZADD', looks, shown(math.min(expiry, now + look_ms)), line)
  end
end
local due = release_later(order.m, order.x)
local first = call('ZRANGE', looks, 0, 0, 'WITHSCORES')[2]
local other = call('ZRANGE', later, 0, 0, 'WITHSCORES')[2]
if not first or (other and tonumber(other) < tonumber(first)) then first = other end
return {shown(now), expired, lapsed, redelivered, due, first or ''}
`,
)

/**
 * `{work}`, now, PUBLISH or SPUBLISH: deletes expired messages of channels and lines, and the waiters of
 * processes that hear nothing any more. Returns now, how many messages, and the inboxes that are taken for dead.
 */
const cleanUp = script(
  'cleanUp',
  workLibrary,
  `
local all = call('HGETALL', channels)
for i = 1, #all, 2 do
  local name = all[i]
  if call('EXISTS', list(name)) == 0 then
    call('HDEL', channels, name)
    call('HDEL', blocks, name)
  elseif tonumber(string.sub(all[i + 1], 1, 16)) <= now then reclaim(name, true) end
end
for _, member in ipairs(call('ZRANGE', parked, 0, -1)) do
  local length = string.match(member, '^(%d+):')
  local prefix = string.sub(member, 1, #length + 1 + tonumber(length))
  local name, entry = parked_entry(member, prefix)
  local _, expiry = read(entry)
  if expiry <= now then
    call('ZREM', parked, member)
    count_parked(name, -1)
    expired = expired + 1
  end
end
local hears = {}
for _, waiter in ipairs(call('HKEYS', waiting)) do
  local process = string.match(waiter, '^[^/]+')
  -- Wakes no slot.
  if hears[process] == nil then hears[process] = call(ARGV[2], base .. 'wake:' .. process, '?') > 0 end
  if not hears[process] then unregister(waiter) end
end
local dead = call('ZRANGEBYSCORE', base .. 'inboxes', '-inf', shown(now), 'LIMIT', 0, ${mostDead})
if #dead > 0 then call('ZREM', base .. 'inboxes', unpack(dead)) end
return {shown(now), expired, dead}
`,
)

/**
 * `{work}`, now. Returns for each channel its name, how many live messages wait and when the oldest
 * of them expires; then the inboxes.
 */
const list = script(
  'list',
  workLibrary,
  `
local found = {}
local function meet(name, entry)
  local id, expiry = read(entry)
  if expiry <= now then return end
  local one, size = found[name], size_of(entry)
  if not one then found[name] = {size, id, expiry}
  else
    one[1] = one[1] + size
    if id < one[2] then one[2], one[3] = id, expiry end
  end
end
for _, name in ipairs(call('HKEYS', channels)) do
  for _, entry in ipairs(call('LRANGE', list(name), 0, -1)) do meet(name, entry) end
end
for _, member in ipairs(call('ZRANGE', parked, 0, -1)) do
  local length = string.match(member, '^(%d+):')
  local prefix = string.sub(member, 1, #length + 1 + tonumber(length))
  meet(parked_entry(member, prefix))
end
local rows = {}
for name, one in pairs(found) do
  rows[#rows + 1] = name
  rows[#rows + 1] = one[1]
  rows[#rows + 1] = shown(one[3])
end
return {rows, call('ZRANGE', base .. 'inboxes', 0, -1)}
`,
)

/** `{work}`, now, milliseconds, then inboxes: notes that they live so much longer. */
const noteInboxes = script(
  'noteInboxes',
  library,
  `
local ends = now + tonumber(ARGV[2])
for i = 3, #ARGV do call('ZADD', base .. 'inboxes', shown(ends), ARGV[i]) end
keep(base .. 'inboxes', math.max(day, tonumber(ARGV[2]) + slack))
return shown(now)
`,
)

/** `{work}`, now, inbox: forgets it. */
const forgetInbox = script(
  'forgetInbox',
  library,
  `
call('ZREM', base .. 'inboxes', ARGV[2])
return shown(now)
`,
)

/** `{work}`, now: deletes all but who waits, which ids were given, and the list of inboxes. */
const flushWork = script(
  'flushWork',
  workLibrary,
  `
for _, name in ipairs(call('HKEYS', channels)) do call('DEL', list(name)) end
call('DEL', channels, blocks, parked_counts, lines, looks, parked, base .. 'lined-up')
call('DEL', later, later_entries, delayed_counts)
return call('ZRANGE', base .. 'inboxes', 0, -1)
`,
)

const inboxLibrary = `${library}
local queue, meta, groups = base .. 'q', base .. 'meta', base .. 'groups'
local taken = base .. 'taken'
local function expiry_of(entry) return tonumber(string.sub(entry, 2, 17)) end
local function is_message(entry)
  local kind = string.byte(entry)
  return kind == 109 or kind == 103 or kind == 98
end
-- Higher than all before, also behind a failover or loss of data that took the last ones away.
local function next_number(last) return shown(math.max(tonumber(last or 0) + 1, now * 1000)) end
-- How many messages an entry has.
local function size_of(entry)
  if string.byte(entry) ~= 98 then return 1 end
  return tonumber(string.match(entry, '^%d+', 18))
end
local function note_blocks(more)
  if more ~= 0 then call('HINCRBY', meta, 'b', more) end
end
local function note_expiry(least, most, is_new)
  local found = call('HMGET', meta, 'f', 'u')
  local first, last = tonumber(found[1] or 9e15), tonumber(found[2] or 0)
  if least < first then call('HSET', meta, 'f', shown(least)) end
  if most > last then
    call('HSET', meta, 'u', shown(most + slack))
    keep(queue, most + slack - now + day)
    keep(meta, most + slack - now + day)
  elseif is_new then call('PEXPIRE', queue, shown(last - now + day)) end
end
local function reclaim()
  local first = tonumber(call('HGET', meta, 'f') or 0)
  if first > now then return 0 end
  local all = call('LRANGE', queue, 0, -1)
  local kept, least, count = {}, 9e15, 0
  for i = 1, #all do
    if is_message(all[i]) then
      local expiry = expiry_of(all[i])
      if expiry > now then
        kept[#kept + 1] = all[i]
        if expiry < least then least = expiry end
      else count = count + size_of(all[i]) end
    else kept[#kept + 1] = all[i] end
  end
  if count > 0 then
    -- First what needs no memory, so that the rest is written though the server's is full.
    call('HDEL', meta, 'k')
    note_blocks(#all - #kept - count)
    local ttl = call('PTTL', queue)
    call('DEL', queue)
    for i = 1, #kept, 1000 do
      call('RPUSH', queue, unpack(kept, i, math.min(i + 999, #kept)))
    end
    if #kept > 0 then call('PEXPIRE', queue, math.max(ttl, slack)) end
    expired = expired + count
  end
  -- Refused where the memory is full and nothing was deleted, which only means to look again.
  redis.pcall('HSET', meta, 'f', shown(least))
  return count
end
`

/**
 * `{reply.…!}`, now, ORDER, then for each entry `LENGTH:` TARGET REST.
 *
 * ORDER is JSON: `s`, `n`, `p`, `u` as in `send`; `t` the kinds of the entries; `x` and `g` how long
 * messages and memberships live; `e` place → time of expiry; `k` capacity. With `m` there is one
 * argument instead, a block of so many messages.
 *
 * Returns now, the expired count, and `g` when there is no such inbox, `b` when there is no room for
 * the whole block, else what was not stored.
 */
const push = script(
  'push',
  inboxLibrary,
  `
local order = cjson.decode(ARGV[2])
local before = done_before(order)
if before then return {shown(now), 0, before} end
local found = call('HMGET', meta, 'o', 'n', 'w', 'h', 'b', 'l')
if not found[1] then return {shown(now), 0, 'g'} end
local waiting = call('LLEN', queue)
local changes, window = tonumber(found[2] or 0), tonumber(found[3] or 0)
local room = order.k - (waiting - changes + tonumber(found[5] or 0))
local standard, member = digits(now + order.x), digits(now + order.g)
local new, refused, least, most, added = {}, {}, 9e15, 0, 0
local entries = #ARGV - 2
if order.m then
  if room < order.m then room = room + reclaim() end
  if room < order.m then return {shown(now), expired, 'b'} end
  local head = 'b' .. standard .. shown(order.m) .. ':'
  if window > 0 and waiting == 0 then
    -- The usual: it is handed over, and joined with its number in one go.
    local number = next_number(found[6])
    local heard = call(order.u, base .. 'in', number .. ' :p:' .. shown(#head + #ARGV[3]) .. ':' .. head .. ARGV[3])
    if heard > 0 then
      call('HSET', meta, 'h', number, 'l', number, 'w', window - 1)
      note_done(order, '')
      return {shown(now), expired, ''}
    end
    call('HSET', meta, 'k', 1, 'l', number, 'w', 0)
    window = 0
  end
  new[1] = head .. ARGV[3]
  least, most = now + order.x, now + order.x
  entries = 0
end
for i = 1, entries do
  local kind = string.sub(order.t, i, i)
  local body = ARGV[i + 2]
  if kind == 'm' or kind == 'g' then
    if room <= 0 then room = room + reclaim() end
    if room <= 0 then refused[#refused + 1] = i .. 'f'
    else
      local at = order.e and order.e[tostring(i)]
      local expiry = at or now + order.x
      new[#new + 1] = kind .. (at and digits(at) or standard) .. body
      if expiry < least then least = expiry end
      if expiry > most then most = expiry end
      room = room - 1
    end
  else
    new[#new + 1] = kind .. member .. body
    added = added + 1
    most = math.max(most, now + order.g)
    if kind == 'a' then
      local length, at = string.match(body, '^(%d+):()')
      call('ZADD', groups, shown(now + order.g), string.sub(body, at + tonumber(length)))
      keep(groups, order.g + day)
    end
  end
end
if #new > 0 then
  local handed = false
  if window > 0 then
    if added > 0 then
      -- What is published may be lost, and a change of membership must not.
      call('HSET', meta, 'w', 0)
      call(order.u, base .. 'in', shown(tonumber(found[4] or 0)) .. ' ')
    elseif waiting == 0 then
      pack_all('', new)
      local number = next_number(found[6])
      handed = call(order.u, base .. 'in', number .. ' ' .. table.concat(packed)) > 0
      if handed then call('HSET', meta, 'h', number, 'l', number, 'w', window - 1)
      -- While a slot moves, its reader may hear of it by another server of the cluster.
      else call('HSET', meta, 'k', #new, 'l', number, 'w', 0) end
    end
  end
  if not handed then
    local length
    for i = 1, #new, 1000 do
      length = call('RPUSH', queue, unpack(new, i, math.min(i + 999, #new)))
    end
    if added > 0 then call('HINCRBY', meta, 'n', added) end
    if order.m then note_blocks(order.m - 1) end
    note_expiry(least, most, length == #new)
  end
end
local outcome = table.concat(refused, ',')
note_done(order, outcome)
return {shown(now), expired, outcome}
`,
)

/**
 * `{reply.…!}`, now, most entries, how many hand-overs it is to be given when there is none, until when or nothing, and the number that the last
 * answer had: changes of membership in an answer that was lost come again. Returns now, `1` when the inbox is open, the number of the last entries it was handed, and packed entries, expired ones among them,
 * and the number of this answer; then how many of the first entries may have been heard too, and of which hand-over.
 */
const take = script(
  'take',
  inboxLibrary,
  `
local found = call('HMGET', meta, 'o', 'h', 't', 'v', 'b', 'k', 'l')
if ARGV[4] ~= '' and now > tonumber(ARGV[4]) then
  return {shown(now), 1, tonumber(found[2] or 0), '', ARGV[5], 0, 0}
end
local answer = found[3] or '0'
local again = {}
if found[4] then
  if ARGV[5] == answer then
    call('DEL', taken)
    call('HDEL', meta, 'v')
  else again = call('LRANGE', taken, 0, -1) end
end
local most, known = tonumber(ARGV[2]), tonumber(found[6] or 0)
if known > 0 then
  call('HDEL', meta, 'k')
  most = math.max(most, known)
end
local got
if tonumber(found[5] or 0) == 0 then got = call('LPOP', queue, most) or {}
else
  -- There are blocks, which may have more messages than are asked for.
  got = {}
  local size = 0
  while size < most or #got < known do
    local entry = call('LPOP', queue)
    if not entry then break end
    got[#got + 1] = entry
    size = size + size_of(entry)
  end
end
local changes, more = {}, 0
for i = 1, #got do
  local kind = string.byte(got[i])
  if kind == 98 then more = more + size_of(got[i]) - 1
  elseif not is_message(got[i]) then changes[#changes + 1] = got[i] end
end
pack_all('', again)
pack_all('', got)
if #changes > 0 then
  answer = next_number(answer)
  call('HSET', meta, 't', answer, 'v', '1')
  for i = 1, #changes, 1000 do
    call('RPUSH', taken, unpack(changes, i, math.min(i + 999, #changes)))
  end
  keep(taken, day)
  call('HINCRBY', meta, 'n', -#changes)
end
note_blocks(-more)
if #got + #again == 0 and ARGV[3] ~= '0' and found[1] then call('HSET', meta, 'w', ARGV[3]) end
return {shown(now), found[1] and 1 or 0, tonumber(found[2] or 0), table.concat(packed), answer,
  #again == 0 and known or 0, tonumber(found[7] or 0)}
`,
)

/**
 * `{reply.…!}`, now, milliseconds, PUBLISH or SPUBLISH or nothing: opens the inbox, or keeps it open so
 * much longer, and publishes to its reader the number of the last entries it was handed. Returns `1` when it was open.
 */
const openInbox = script(
  'openInbox',
  inboxLibrary,
  `
local was = call('EXISTS', meta)
call('HSET', meta, 'o', '1')
keep(meta, tonumber(ARGV[2]) + slack)
keep(queue, tonumber(ARGV[2]) + slack)
call('ZREMRANGEBYSCORE', groups, '-inf', shown(now - slack))
if ARGV[3] ~= '' then
  call(ARGV[3], base .. 'in', shown(tonumber(call('HGET', meta, 'h') or 0)) .. ' ')
end
return was
`,
)

/** `{reply.…!}`, now: deletes expired messages. Returns now and how many. */
const cleanInbox = script(
  'cleanInbox',
  inboxLibrary,
  `
reclaim()
return {shown(now), expired}
`,
)

/** `{reply.…!}`, now. Returns how many live messages wait, and when the oldest expires. */
const lookAtInbox = script(
  'lookAtInbox',
  inboxLibrary,
  `
local count, oldest = 0, ''
for _, entry in ipairs(call('LRANGE', queue, 0, -1)) do
  if is_message(entry) and expiry_of(entry) > now then
    if count == 0 then oldest = shown(expiry_of(entry)) end
    count = count + size_of(entry)
  end
end
return {count, oldest}
`,
)

/**
 * `{reply.…!}`, now. Returns the changes of membership that were not taken yet, behind those whose reader may not
 * have them, as entries.
 */
const unreadChanges = script(
  'unreadChanges',
  inboxLibrary,
  `
local found = call('LRANGE', taken, 0, -1)
if tonumber(call('HGET', meta, 'n') or 0) > 0 then
  for _, entry in ipairs(call('LRANGE', queue, 0, -1)) do
    if not is_message(entry) then found[#found + 1] = entry end
  end
end
return found
`,
)

/** `{reply.…!}`, now, milliseconds, then groups in which it may have members for so long. */
const noteGroups = script(
  'noteGroups',
  inboxLibrary,
  `
for i = 3, #ARGV do call('ZADD', groups, shown(now + tonumber(ARGV[2])), ARGV[i]) end
keep(groups, tonumber(ARGV[2]) + day)
return 1
`,
)

/** `{reply.…!}`, now: forgets the inbox. Returns how many messages lay in it, and its groups. */
const closeInbox = script(
  'closeInbox',
  inboxLibrary,
  `
local count = 0
for _, entry in ipairs(call('LRANGE', queue, 0, -1)) do
  if is_message(entry) then count = count + size_of(entry) end
end
local held = call('ZRANGE', groups, 0, -1)
call('DEL', queue, taken, meta, groups)
return {count, held}
`,
)

/** `{reply.…!}`, now: empties the inbox. */
const flushInbox = script(
  'flushInbox',
  inboxLibrary,
  `
call('DEL', queue, taken, groups)
call('HDEL', meta, 'n', 'b', 'f', 'u', 'v', 'k')
return 1
`,
)

const groupLibrary = `${library}
local members, inboxes = base .. 'm', base .. 'i'
local function inbox_of(channel) return string.match(channel, '^[^!]*!') or channel end
local function remove(channel)
  if call('ZREM', members, channel) == 1 then
    local inbox = inbox_of(channel)
    if call('HINCRBY', inboxes, inbox, -1) <= 0 then call('HDEL', inboxes, inbox) end
  end
end
local function sweep()
  while true do
    local gone = call('ZRANGEBYSCORE', members, '-inf', shown(now), 'LIMIT', 0, 1000)
    for i = 1, #gone do remove(gone[i]) end
    if #gone < 1000 then return end
  end
end
`

/** `{g:NAME}`, now, milliseconds, then members: records them for so long. */
const record = script(
  'record',
  groupLibrary,
  `
sweep()
local ms = tonumber(ARGV[2])
local ends = shown(now + ms)
for i = 3, #ARGV do
  if call('ZADD', members, ends, ARGV[i]) == 1 then
    call('HINCRBY', inboxes, inbox_of(ARGV[i]), 1)
  end
end
keep(members, ms + slack)
keep(inboxes, ms + slack)
return 1
`,
)

/** `{g:NAME}`, now, then members: ends their memberships. */
const drop = script(
  'drop',
  groupLibrary,
  `
for i = 2, #ARGV do remove(ARGV[i]) end
return 1
`,
)

/** `{g:NAME}`, now, inbox: ends the memberships of all its channels. */
const dropInbox = script(
  'dropInbox',
  groupLibrary,
  `
if call('HEXISTS', inboxes, ARGV[2]) == 1 then
  for _, channel in ipairs(call('ZRANGE', members, 0, -1)) do
    if inbox_of(channel) == ARGV[2] then remove(channel) end
  end
end
return 1
`,
)

/** `{g:NAME}`, now. Returns the inboxes and work channels with live members. */
const receivers = script('receivers', groupLibrary, `sweep()\nreturn call('HKEYS', inboxes)\n`)

/** `{g:NAME}`, now. Returns the live members. */
const listMembers = script(
  'listMembers',
  groupLibrary,
  `return call('ZRANGEBYSCORE', members, '(' .. shown(now), '+inf')\n`,
)

/** `{g:NAME}`, now. Returns how many live members there are. */
const countMembers = script(
  'countMembers',
  groupLibrary,
  `return call('ZCOUNT', members, '(' .. shown(now), '+inf')\n`,
)

/** `{processes}`, now, milliseconds, id, JSON: announces a process for so long. */
const announce = script(
  'announce',
  library,
  `
call('HSET', base .. 'all', ARGV[3], digits(now + tonumber(ARGV[2])) .. ARGV[4])
keep(base .. 'all', math.max(day, tonumber(ARGV[2]) + slack))
return 1
`,
)

/** `{processes}`, now, id: takes an announcement back. */
const withdraw = script('withdraw', library, `return call('HDEL', base .. 'all', ARGV[2])\n`)

/** `{processes}`, now. Returns the announcements whose lease runs, and deletes the others. */
const listProcesses = script(
  'listProcesses',
  library,
  `
local all = call('HGETALL', base .. 'all')
local found = {}
for i = 1, #all, 2 do
  if tonumber(string.sub(all[i + 1], 1, 16) or 0) > now then
    found[#found + 1] = string.sub(all[i + 1], 17)
  else
    call('HDEL', base .. 'all', all[i])
  end
end
return found
`,
)

/** `{work}`, now, PUBLISH or SPUBLISH: uses each kind of key and command once, and leaves nothing. */
const tryOut = script(
  'tryOut',
  library,
  `
local key = base .. 'try:'
call('RPUSH', key .. 'l', 'a', 'b')
call('LPOP', key .. 'l', 1)
call('RPOP', key .. 'l')
call('PUBSUB', 'NUMSUB', base .. 'try')
call('HSET', key .. 'h', 'a', '1')
call('ZADD', key .. 'z', 0, 'a')
call('ZRANGEBYLEX', key .. 'z', '[a', '(b', 'LIMIT', 0, 1)
call('INCRBY', key .. 'n', 1)
call(ARGV[2], base .. 'try', '')
call('DEL', key .. 'l', key .. 'h', key .. 'z', key .. 'n')
return shown(now)
`,
)

/** The scripts, by name. */
export const scripts = {
  send,
  claim,
  claimLines,
  putOff,
  cancel,
  settle,
  renewHolds,
  unwait,
  handBack,
  advance,
  renewLines,
  release,
  cleanUp,
  list,
  noteInboxes,
  forgetInbox,
  flushWork,
  push,
  take,
  openInbox,
  cleanInbox,
  lookAtInbox,
  unreadChanges,
  noteGroups,
  closeInbox,
  flushInbox,
  record,
  drop,
  dropInbox,
  receivers,
  listMembers,
  countMembers,
  announce,
  withdraw,
  listProcesses,
  tryOut,
} as const

/** The bases of a site's slots, by its prefix. */
export class Bases {
  readonly prefix: string
  readonly work: string
  readonly processes: string

  constructor(prefix: string) {
    this.prefix = prefix
    this.work = `${prefix}{work}`
    this.processes = `${prefix}{processes}`
  }

  /** @param name - with its `!`. */
  inbox(name: string): string {
    return `${this.prefix}{${name}}`
  }

  group(name: string): string {
    return `${this.prefix}{g:${name}}`
  }

  /** The group whose members' key this is, or `undefined`. */
  groupOfKey(key: string): string | undefined {
    const start = `${this.prefix}{g:`
    if (!key.startsWith(start) || !key.endsWith('}m')) return undefined
    return key.slice(start.length, -2)
  }
}
