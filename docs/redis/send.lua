

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

local function list(channel) return base .. 'c:' .. channel end
local channels, parked_counts = base .. 'channels', base .. 'parked-counts'
local lines, looks, parked = base .. 'lines', base .. 'looks', base .. 'parked'
local waiters, waiting = base .. 'waiters', base .. 'waiting'
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
local function of_line(line) return #line .. ':' .. line end
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
