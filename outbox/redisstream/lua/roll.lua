-- Adds what settlements left for statistics to the rows of their hours.
-- KEYS: meta, took, periods, a hash for each hour. ARGV: outbox id, ids of the first and the last entry that are
-- added, behind the last one, bytes that the rows grow by; for each hour: its begin in seconds,
-- how many fields and values, these.
-- Returns 1, or 0 if another roll was first.
if redis.call('HGET', KEYS[1], 'id') ~= ARGV[1] then return redis.error_reply('EPOCH the outbox is another one than before') end
local first = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]
if not first or first[1] ~= ARGV[2] then return 0 end
local a = 5
for k = 4, #KEYS do
  local n = tonumber(ARGV[a + 1])
  for from = a + 2, a + 1 + n, 1000 do
    redis.call('HSET', KEYS[k], unpack(ARGV, from, math.min(from + 999, a + 1 + n)))
  end
  redis.call('ZADD', KEYS[3], ARGV[a], 'h' .. ARGV[a])
  a = a + 2 + n
end
redis.call('XTRIM', KEYS[2], 'MINID', ARGV[3])
redis.call('HINCRBY', KEYS[1], 'bytes', ARGV[4])
return 1
