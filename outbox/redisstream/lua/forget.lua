-- Ends a claim whose delivery cannot be made any more, because its event or its
-- record is gone or says that it is over.
-- KEYS: lease, counts, created. ARGV: tail, the lease's member, endpoint,
-- '1' to count it as discarded.
if redis.call('ZREM', KEYS[1], ARGV[2]) == 0 then return 0 end
redis.call('ZREM', KEYS[3], ARGV[1])
if ARGV[4] == '1' then redis.call('HINCRBY', KEYS[2], ARGV[3] .. '|x', 1) end
return 1
