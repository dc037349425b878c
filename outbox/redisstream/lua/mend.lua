-- Puts pending deliveries that are nowhere back in line, to wait for their due time:
-- somebody deleted entries.
-- KEYS: meta. ARGV: key prefix; for each delivery: tail, endpoint.
-- Returns how many were nowhere.
local prefix, mended, now, rung = ARGV[1], 0, clock(), {}
local next, keep = orders(prefix, now)

-- waits tells whether a delivery is where it was put first, or among the retries.
local function waits(endpoint, first, tail)
  for _, line in ipairs({'q:', 'x:'}) do
    if #redis.call('XRANGE', prefix .. line .. endpoint, first, first) > 0 then return true end
  end
  return redis.call('ZSCORE', prefix .. 'r:' .. endpoint, tail)
end

for a = 2, #ARGV, 2 do
  local tail, endpoint = ARGV[a], ARGV[a + 1]
  local o, n, total, id = string.match(tail, '^(%d+)%.(%d+)%.(%d+)|(.*)$')
  local kept = held('HMGET', prefix .. 'e:' .. id, 'o', n, 'r' .. n) or {}
  local record, order = kept[2], kept[1]
  if tonumber(n) >= tonumber(total) then order = kept[3] and string.match(kept[3], '^%d+') end -- an operator made it
  if order == o and (not record or string.byte(record) == 112) and not waits(endpoint, o .. '-' .. n, tail) then
    local due = record and tonumber(string.match(record, '^p%d+,(%d+)')) or now
    if due > now then
      redis.call('ZADD', prefix .. 'r:' .. endpoint, text(due), tail)
      redis.call('ZADD', prefix .. 'c:' .. endpoint, o, tail)
      redis.call('ZADD', prefix .. 'agenda', 'LT', text(due), endpoint)
    else
      back(prefix, endpoint, next(), tail)
      rung[endpoint] = true
    end
    mended = mended + 1
  end
end
keep()
for endpoint in pairs(rung) do wake(prefix, endpoint) end
return mended
