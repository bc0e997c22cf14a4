
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
sweep()
return call('HKEYS', inboxes)
