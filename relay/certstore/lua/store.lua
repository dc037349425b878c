-- Keeps a value.
-- KEYS: index, values, times   ARGV: key, value, length of the plain value
local now = redis.call('TIME')
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
redis.call('HSET', KEYS[3], ARGV[1], now[1] .. ' ' .. ARGV[3])
redis.call('ZADD', KEYS[1], 0, ARGV[1])
return 1
