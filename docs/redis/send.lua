
local base = KEYS[1]
local call = redis.call
local now
if ARGV[1] ~= '' then now = tonumber(ARGV[1])
else local t = call('TIME') now = t[1] * 1000 + math.floor(t[2] / 1000) end
local function digits(n) return string.format('%016.0f', n) end
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
local has_older = false
local function done_before(order)
  local key = base .. 'sender:' .. order.s
  local found = call('HMGET', key, 'n', 'p' .. order.p)
  local number = tonumber(found[1] or -1)
  if number == order.n and found[2] then return found[2] end
  if number > order.n or is_late(order) then return 'late' end
  has_older = number < order.n and found[1] ~= false
end
local function note_done(order, outcome)
  local key = base .. 'sender:' .. order.s
  if has_older then call('DEL', key) end
  call('HSET', key, 'n', shown(order.n), 'p' .. order.p, outcome)
  call('PEXPIRE', key, 120000)
end

local function list(channel) return base .. 'c:' .. channel end
local channels, parked_counts = base .. 'channels', base .. 'parked-counts'
local lines, looks, parked = base .. 'lines', base .. 'looks', base .. 'parked'
local waiters, waiting = base .. 'waiters', base .. 'waiting'
local later, later_entries, delayed_counts = base .. 'later', base .. 'later-entries', base .. 'delayed-counts'
local publish
local function read(entry)
  local id, expiry, length, at = string.match(entry, '^(%d+):(%d+):%d+:(%d*):()')
  if not id then return '0', 0 end
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
local function unregister(waiter)
  local found = call('HGET', waiting, waiter)
  if not found then return false end
  call('HDEL', waiting, waiter)
  call('ZREM', waiters, unpack(cjson.decode(found)))
  return true
end
local function register(waiter, names)
  unregister(waiter)
  local number = digits(first_id(1))
  local members, scored = {}, {}
  for i, name in ipairs(names) do
    members[i] = name .. ' ' .. number .. ' ' .. waiter
    scored[2 * i - 1] = 0
    scored[2 * i] = members[i]
  end
  call('ZADD', waiters, unpack(scored))
  call('HSET', waiting, waiter, cjson.encode(members))
  keep(waiters, day)
  keep(waiting, day)
end
-- Wakes who has waited longest for the channel, and lives.
local function wake(name)
  while true do
    local found = call('ZRANGEBYLEX', waiters, '[' .. name .. ' ', '(' .. name .. '!', 'LIMIT', 0, 1)[1]
    if not found then return end
    local waiter = string.match(found, '^[^ ]+ %d+ (.*)$')
    if not unregister(waiter) then call('ZREM', waiters, found) end
    if call(publish, base .. 'wake:' .. string.match(waiter, '^[^/]+'), waiter) > 0 then return end
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
  if not head or id < read(head) then
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

local order = cjson.decode(ARGV[2])
publish = order.u
local before = done_before(order)
if before then return {shown(now), 0, before} end
local count = #ARGV - 2
local id = first_id(count)
local standard = digits(now + order.x)
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
  if held < order.l and order.k[1] - call('LLEN', list(name)) - held >= count then
    local entries = {}
    for i = 1, count do entries[i] = entry_of(id + i, ARGV[i + 2]) end
    local length = call('RPUSH', list(name), unpack(entries))
    note_expiry(name, now + order.x, now + order.x, length == count)
    wake(name)
    first = count + 1
  end
end
for i = first, count do
  local c = order.o and order.o[i] or 1
  local name = order.c[c]
  local body = ARGV[i + 2]
  if not room[c] then
    local held = tonumber(call('HGET', parked_counts, name) or 0)
    room[c] = order.k[c] - call('LLEN', list(name)) - held
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
