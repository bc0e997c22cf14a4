

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

local queue, meta, groups = base .. 'q', base .. 'meta', base .. 'groups'
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
