-- Ends a claim whose delivery cannot be made any more, because its event or its
-- record is gone or says that it is over.
-- KEYS: stream, counts, created, took. ARGV: id of the entry, tail, endpoint, '1' to count it as discarded.
local known = redis.call('XACK', KEYS[1], 'relay', ARGV[1])
redis.call('XDEL', KEYS[1], ARGV[1])
if known == 0 then return 0 end
redis.call('ZREM', KEYS[3], ARGV[2])
if ARGV[4] == '1' then
  redis.call('HINCRBY', KEYS[2], ARGV[3] .. '|x', 1)
  redis.call('XADD', KEYS[4], '*', 'd', measured(ARGV[3]) .. '\0\0', 'r', '\0\0\6\0\0\0\0\0\0')
end
return 1
