-- Moves rows of an hour to its day, unless another Relay did so.
-- KEYS: meta, periods, the hour, the day. ARGV: outbox id, begin of the hour and of the day in seconds; for each
-- row: field, value of the hour, value of the day before ('' for none) and after.
if redis.call('HGET', KEYS[1], 'id') ~= ARGV[1] then return redis.error_reply('EPOCH the outbox is another one than before') end
local bytes = 0
for a = 4, #ARGV, 4 do
  if redis.call('HGET', KEYS[3], ARGV[a]) == ARGV[a + 1] and (redis.call('HGET', KEYS[4], ARGV[a]) or '') == ARGV[a + 2] then
    redis.call('HSET', KEYS[4], ARGV[a], ARGV[a + 3])
    redis.call('HDEL', KEYS[3], ARGV[a])
    bytes = bytes + #ARGV[a + 3] - #ARGV[a + 2] - #ARGV[a + 1]
  end
end
redis.call('ZADD', KEYS[2], ARGV[3], 'd' .. ARGV[3])
if redis.call('EXISTS', KEYS[3]) == 0 then redis.call('ZREM', KEYS[2], 'h' .. ARGV[2]) end
redis.call('HINCRBY', KEYS[1], 'bytes', bytes)
return 1
