

local base = KEYS[1]
local call = redis.call
local now
if ARGV[1] ~= '' then now = tonumber(ARGV[1])
else local t = call('TIME') now = t[1] * 1000 + math.floor(t[2] / 1000) end
local function shown(n) return string.format('%.0f', n) end
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
