-- Removes a Relay's consumers where they have no claims, and what it said of itself.
-- KEYS: alive, who, about. ARGV: key prefix, consumer, its token ('' for any), '1' for the last
-- of several calls; endpoints. Returns '1' if these have nothing of it any more.
local prefix, consumer, all = ARGV[1], ARGV[2], '1'
if ARGV[3] ~= '' and redis.call('HGET', KEYS[2], consumer) ~= ARGV[3] then return '0' end
for a = 5, #ARGV do
  for _, line in ipairs({'q:', 'x:'}) do
    local stream = prefix .. line .. ARGV[a]
    if #pending(stream, '-', '+', 1, consumer) > 0 then
      all = '0' -- XGROUP DELCONSUMER would forget these claims
    else
      redis.pcall('XGROUP', 'DELCONSUMER', stream, 'relay', consumer) -- where there is no group there is no consumer
    end
  end
end
if ARGV[4] == '1' then
  redis.call('ZREM', KEYS[1], consumer)
  redis.call('HDEL', KEYS[2], consumer)
  redis.call('HDEL', KEYS[3], consumer)
end
return all
