-- Looks whether the lines of endpoints have what counts say is pending, and sees to it that
-- somebody looks for the ends of their leases and for their retries.
-- KEYS: counts, leases, agenda. ARGV: key prefix, endpoints.
-- Returns the endpoints that lack something, each with 'q' or 'x' for a stream with entries that
-- nobody can claim, or '' where deliveries are in no line.
local prefix, out, now = ARGV[1], {}, text(clock())
for a = 2, #ARGV do
  local name, waiting, sound = ARGV[a], 0, true
  for _, line in ipairs({'q', 'x'}) do
    local stream = prefix .. line .. ':' .. name
    waiting = waiting + redis.call('XLEN', stream)
    if stranded(stream, 1)[1] then
      sound = false
      out[#out + 1], out[#out + 2] = name, line
    end
  end
  if claimed(prefix, name) > 0 then redis.call('ZADD', KEYS[2], 'NX', now, name) end
  local first = redis.call('ZRANGE', prefix .. 'r:' .. name, 0, 0, 'WITHSCORES')
  if first[2] then redis.call('ZADD', KEYS[3], 'LT', text(tonumber(first[2])), name) end
  local n = redis.call('HMGET', KEYS[1], name .. '|a', name .. '|d', name .. '|f', name .. '|x')
  local pending = tonumber(n[1] or 0) - tonumber(n[2] or 0) - tonumber(n[3] or 0) - tonumber(n[4] or 0)
  if sound and pending > waiting + redis.call('ZCARD', prefix .. 'r:' .. name) then
    out[#out + 1], out[#out + 2] = name, ''
  end
end
return out
