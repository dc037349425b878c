-- Removes a key, and all keys below it. Returns how many there were.
-- KEYS: index, values, times   ARGV: key
local all = redis.call('ZRANGE', KEYS[1], '[' .. ARGV[1] .. '/', '(' .. ARGV[1] .. '0', 'BYLEX')
all[#all + 1] = ARGV[1]
local n = 0
for _, key in ipairs(all) do
  n = n + redis.call('HDEL', KEYS[2], key)
  redis.call('HDEL', KEYS[3], key)
  redis.call('ZREM', KEYS[1], key)
end
return n
