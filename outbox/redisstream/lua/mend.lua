-- Puts pending deliveries that are nowhere back in line, to wait for their due time:
-- somebody deleted entries.
-- KEYS: lease, bell. ARGV: key prefix; for each delivery: tail, endpoint.
-- Returns how many were nowhere.
local prefix, mended, claimed, rung = ARGV[1], 0, {}, {}
for _, member in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local place = string.match(member, '^[^|]*|(.*)$')
  if place then claimed[place] = true end
end
local now = clock()
for a = 2, #ARGV, 2 do
  local tail, endpoint = ARGV[a], ARGV[a + 1]
  local o, n, total, id = string.match(tail, '^(%d+)%.(%d+)%.(%d+)|(.*)$')
  local event = prefix .. 'e:' .. id
  local record = redis.call('HGET', event, n)
  if redis.call('HGET', event, 'o') == o and (not record or string.byte(record) == 112) and not claimed[n .. '|' .. total .. '|' .. endpoint .. '|' .. id]
    and not redis.call('ZSCORE', prefix .. 'r:' .. endpoint, tail)
    and #redis.call('XRANGE', prefix .. 'q:' .. endpoint, o .. '-' .. n, o .. '-' .. n) == 0 then
    local due = record and tonumber(string.match(record, '^p%d+,(%d+)')) or now
    back(prefix, endpoint, text(due), tail)
    if due > now then
      redis.call('ZADD', prefix .. 'agenda', 'LT', text(due), endpoint)
    else
      rung[endpoint] = true
    end
    mended = mended + 1
  end
end
for endpoint in pairs(rung) do ring(KEYS[2], endpoint) end
return mended
